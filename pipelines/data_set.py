"""Prepare and split a data set in a folder of its own: one of `study.data`, on which a study trains all its arms."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from llm4seg.config import Config
from llm4seg.config.schema import Overrides
from llm4seg.data.prepared import MANIFEST
from llm4seg.utils.errors import InputError
from pipelines.other_data import run_command
from pipelines.prepare import prepare
from pipelines.preset import overrides
from pipelines.split import split
from pipelines.stage import near

log = logging.getLogger("llm4seg.pipelines.data_set")


def data_set(params: Path, folder: Path, presets: Sequence[str], values: Overrides) -> None:
    """Make a data set as the stages `prepare` and `split` would with these presets and values: in `folder`, prepared/,
    split.json and, a look at it, data.png.

    Raises InputError for a folder that holds anything but what this command left.
    """
    config = Config.load(params).override(overrides(params, presets) | values).resolved(params.absolute().parent)
    folder = Path(os.path.normpath(folder.absolute()))
    if folder / "prepared" == config.paths.prepared:
        raise InputError(f"{near(folder)}: is where `dvc repro split` writes to, allowed: another folder")
    if folder.exists() and not (folder / "prepared" / MANIFEST).is_file():
        raise InputError(f"{near(folder)}: holds no data set, allowed: a new folder, or what this command left")
    places = {"prepared": "prepared", "split": "split.json", "contact_sheet": "data.png"}
    config = config.override({f"paths.{name}": str(folder / place) for name, place in places.items()})
    prepare(config)
    split(config)
    log.info(f"data_set: to name it in study.data: {near(folder)}; to version it: dvc add {near(folder)}")


def main() -> None:
    """Run the command line of this module."""
    run_command("data_set", __doc__, data_set, "data/sets/phantom -S data.dataset=phantom -S 'data.size=[64,64]'")


if __name__ == "__main__":
    main()
