"""Print presets of params.yaml as options for `dvc exp run`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.config.changes import committed_values
from llm4seg.config.config import preset_changes, presets_in
from llm4seg.config.overrides import apply
from llm4seg.config.params_file import read
from llm4seg.config.schema import Overrides
from llm4seg.config.schema.data import PICTURES
from llm4seg.datasets.archives import ENDINGS
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.logs import add_flags, configure

log = logging.getLogger("llm4seg.pipelines.preset")

DEFAULT = "default"  # the preset that goes back to the values of the last commit
ROOT = "data.root"


def options(params: Path, names: Sequence[str]) -> str:
    """The overrides of some presets together, as options of `dvc exp run`."""
    return " ".join(f"-S {dotted}={_for_shell(value)}" for dotted, value in overrides(params, names).items())


def overrides(params: Path, names: Sequence[str]) -> Overrides:
    """The overrides of some presets together: each parameter once, the last one's value.

    Where data.root is no folder, but an archive of that name lies beside it, it is the archive, which DVC then knows by
    its own name. Values that an experiment left in params.yaml may be refused, if the presets replace them. Raises
    InputError for an unknown preset, and where params.yaml is refused with the presets' values, too.
    """
    values = read(params)
    changes = preset_changes(presets_in(values, str(params)), *names)
    apply(changes, values)
    try:
        Config.parse(values, f"{params} with {' '.join(names)}")
    except InputError as error:
        raise InputError(f"{error}; if an experiment left that value there: git checkout {params.name}") from None
    if ROOT in changes:
        changes[ROOT] = next(iter(_places(params.parent, changes[ROOT])), changes[ROOT])
    return changes


def _places(folder: Path, root: str) -> list[str]:
    """Where the data of a preset's data.root lie: there, or in an archive beside it; also if `dvc pull` brings them."""
    places = [f"{root}{ending}" for ending in ("", *ENDINGS)]
    return [place for place in places if (folder / place).exists() or (folder / f"{place}.dvc").exists()]


def missing_data(params: Path, names: Sequence[str]) -> list[str]:
    """A line where the presets name a data set that is not there; none where they name none."""
    root = overrides(params, names).get(ROOT)
    if root is None or _places(params.parent, root):
        return []
    return [
        f"{root}: no such folder, nor an archive of that name ({', '.join(ENDINGS)}): put the data there "
        f"(docs/datasets.md), or name another place with -S {ROOT}=..."
    ]


def unfit_loss(params: Path, names: Sequence[str]) -> list[str]:
    """A line where the presets name volumes, whose classes are mostly several, and a loss of one class."""
    changes = overrides(params, names)
    dataset = changes.get("data.dataset")
    if dataset is None or dataset in PICTURES or changes.get("training.loss") != "bce_dice":
        return []
    return [f"training.loss is bce_dice, as of recipe-2d, for one class: {dataset} with several needs recipe-slices"]


def differing_defaults(params: Path) -> list[str]:
    """A line for each parameter that the preset `default` sets to another value than the last commit has."""
    committed = committed_values(params)
    return [
        f"{DEFAULT} sets {name} to {_for_shell(value)}, but the last commit has {_for_shell(committed[name])}: "
        f"change presets.{DEFAULT} with it"
        for name, value in presets_in(read(params), str(params))[DEFAULT].items()
        if name in committed and committed[name] != value
    ]


def _for_shell(value: Any) -> str:
    """A value as DVC's options have it: Hydra's, in which an equals sign is escaped."""
    return value.replace("=", "\\=") if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def main(words: Sequence[str] | None = None, prog: str = "python -m pipelines.preset") -> None:
    """Print one line for all presets; for an unknown preset, exit 1 with one line on stderr and none on stdout."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Print presets of params.yaml as options for `dvc exp run`: several together, the later ones win.",
        epilog=f"example: dvc exp run $({prog} default released)",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    add_flags(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="under `presets` of params.yaml")
    arguments = parser.parse_args(words)
    try:
        configure(arguments.log)
        print(options(arguments.params, arguments.names))
        notes = differing_defaults(arguments.params) if DEFAULT in arguments.names else []
        notes += unfit_loss(arguments.params, arguments.names) + missing_data(arguments.params, arguments.names)
        for line in notes:
            log.warning(f"preset: {line}")
    except UserError as error:
        sys.exit(f"preset: {error}")


if __name__ == "__main__":
    main()
