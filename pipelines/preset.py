"""Print presets of params.yaml as options for `dvc exp run`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.config.changes import committed_values
from llm4seg.config.config import preset_changes, presets_in
from llm4seg.config.overrides import apply
from llm4seg.config.params_file import read
from llm4seg.utils.errors import InputError, UserError

DEFAULT = "default"  # the preset that goes back to the values of the last commit


def options(params: Path, names: Sequence[str]) -> str:
    """The overrides of some presets together, as options of `dvc exp run`: each parameter once, the last one's value.

    Values that an experiment left in params.yaml may be refused, if the presets replace them. Raises InputError for an
    unknown preset, and where params.yaml is refused with the presets' values, too.
    """
    values = read(params)
    changes = preset_changes(presets_in(values, str(params)), *names)
    apply(changes, values)
    try:
        Config.parse(values, f"{params} with {' '.join(names)}")
    except InputError as error:
        raise InputError(f"{error}; if an experiment left that value there: git checkout {params.name}") from None
    return " ".join(f"-S {dotted}={_for_shell(value)}" for dotted, value in changes.items())


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


def main() -> None:
    """Print one line for all presets; for an unknown preset, exit 1 with one line on stderr and none on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.preset",
        description="Print presets of params.yaml as options for `dvc exp run`: several together, the later ones win.",
        epilog="example: dvc exp run $(python -m pipelines.preset default released)",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("names", nargs="+", metavar="NAME", help="under `presets` of params.yaml")
    arguments = parser.parse_args()
    try:
        print(options(arguments.params, arguments.names))
        for line in differing_defaults(arguments.params) if DEFAULT in arguments.names else []:
            print(f"preset: {line}", file=sys.stderr)
    except UserError as error:
        sys.exit(f"preset: {error}")


if __name__ == "__main__":
    main()
