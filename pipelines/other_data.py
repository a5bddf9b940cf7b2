"""Prepare a second data set beside the pipeline's own: `study.other_data`, on which a study's models are measured."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.config.params_file import parse
from llm4seg.config.schema import Overrides
from llm4seg.data.prepared import MANIFEST, Prepared
from llm4seg.datasets.spacing import in_config_order
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.logs import add_flags, configure
from pipelines.prepare import prepare
from pipelines.preset import overrides
from pipelines.stage import near

log = logging.getLogger("llm4seg.pipelines.other_data")

Work = Callable[[Path, Path, Sequence[str], Overrides], None]  # of params.yaml, a folder, presets and values
NO_LIST: Overrides = {"split.rule": "auto", "split.file": None}  # which are the own data's: all of these are measured


def other_data(params: Path, folder: Path, presets: Sequence[str], values: Overrides) -> None:
    """Prepare in `folder`, as `prepare` would, the data set that params.yaml names with these presets and values.

    Its contact sheet lies beside it. Where `data.spacing` is auto, it is that of the prepared own data. Raises
    InputError for a folder that holds anything but prepared data.
    """
    config = (
        Config.load(params).override(NO_LIST | overrides(params, presets) | values).resolved(params.absolute().parent)
    )
    folder = Path(os.path.normpath(folder.absolute()))
    if folder == config.paths.prepared:
        raise InputError(f"{near(folder)}: is paths.prepared, allowed: another folder, beside the pipeline's own data")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise InputError(f"{near(folder)}: holds no prepared data, allowed: a new folder, or what this command left")
    config = _at_own_spacing(config)
    sheet = folder.with_name(f"{folder.name}.png")
    prepare(config.override({"paths.prepared": str(folder), "paths.contact_sheet": str(sheet)}))
    log.info(
        f"other_data: for `dvc exp run`: -S study.other_data={near(folder)}; to version it: dvc add {near(folder)}"
    )


def _at_own_spacing(config: Config) -> Config:
    """The config with the spacing of `paths.prepared` where `data.spacing` is auto: a study has one for all its data.

    Raises InputError where no data are prepared there, or none at a spacing.
    """
    if config.data.grid != "spacing":
        return config
    folder, found = config.paths.prepared, config.data.spacing
    own = Prepared(folder) if (folder / MANIFEST).is_file() else None
    if own is None or own.spacing is None:
        if found != "auto":
            return config
        what = "is not there yet" if own is None else f"holds {own.name} without a spacing"
        raise InputError(
            f"data.spacing: found auto, allowed: that of the study's own data, but {near(folder)} {what}: run "
            "`dvc repro prepare` for them first, or say -S 'data.spacing=[X, Y, Z]'"
        )
    spacing = in_config_order(own.spacing)
    if found == "auto":
        log.info(f"other_data: data.spacing: auto is {spacing} mm, as of {own.name} in {near(folder)}")
    elif list(found) != spacing:
        log.warning(
            f"warning: data.spacing is {[*found]}, of {own.name} in {near(folder)} {spacing}: a study needs one"
        )
    return config.override({"data.spacing": spacing if found == "auto" else found})


def value_of(word: str) -> tuple[str, Any]:
    """The name and value of `data.dataset=busi`. Raises InputError for another form."""
    name, found, value = word.partition("=")
    if not found:
        raise InputError(f"-S: found {word}, allowed: NAME=VALUE")
    return name, parse(f"value: {value}".encode(), f"-S {word}")["value"]


def run_command(name: str, description: str | None, work: Work, example: str) -> None:
    """Run `work` of params.yaml, a folder, presets and values, as `python -m pipelines.NAME` with words as `example`.

    Exit 1 with one line for a bad input.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m pipelines.{name}",
        description=description,
        epilog=f"example: python -m pipelines.{name} {example}",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("-S", dest="values", metavar="NAME=VALUE", action="append", default=[], help="a parameter")
    add_flags(parser)
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="under `presets` of params.yaml")
    arguments = parser.parse_args()
    try:
        configure(arguments.log)
        values = dict(map(value_of, arguments.values))
        work(arguments.params, arguments.folder, arguments.presets, values)
    except (UserError, OSError) as error:
        sys.exit(f"{name}: {error}")


def main() -> None:
    """Run the command line of this module."""
    run_command("other_data", __doc__, other_data, "data/other cvc-clinicdb recipe-2d")


if __name__ == "__main__":
    main()
