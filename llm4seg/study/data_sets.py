"""The data sets of a study: `study.data`, folders of prepared data and a split, on each of which arms are trained.

Other than `study.other_data`, on which models that were trained elsewhere are only measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llm4seg.config import Config
from llm4seg.config.schema import Overrides
from llm4seg.data.prepared import MANIFEST, Prepared
from llm4seg.data.split import read_split
from llm4seg.training.class_weights import class_weights
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import sha256_file

PREPARED, SPLIT = "prepared", "split.json"  # in a data set's folder
# the section `data` of a data set that is prepared already: nothing of how it was made is read again
NOT_READ: Overrides = {
    "data.dataset": "phantom",
    "data.classes": None,
    "data.regions_class_order": None,
    "data.paired": [],
}


def configs_of_data(config: Config) -> dict[str, Config]:
    """The study's config on each of `study.data`, by the data set's name.

    Raises InputError naming the folder that is no data set, has the name of another, or that an arm cannot be trained
    on.
    """
    found: dict[str, Config] = {}
    folders: dict[str, Path] = {}
    for folder in config.study.data:
        with naming(folder):
            data = _prepared(folder)
            if data.name in found:
                raise InputError(
                    f"found {data.name}, as {folders[data.name]} is, allowed: data sets of different names, by which "
                    "results tell them apart"
                )
            found[data.name], folders[data.name] = _on_data(config, folder, data), folder
    return found


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Context manager in which an InputError names the folder of `study.data` that it is of."""
    try:
        yield
    except InputError as error:
        raise InputError(f"study.data: {folder}: {error}") from None


def _prepared(folder: Path) -> Prepared:
    """The prepared data of a folder. Raises InputError where there are none, or they have no split."""
    made_by = "allowed: a folder that `python -m pipelines.data_set` made (docs/study.md)"
    for name in (f"{PREPARED}/{MANIFEST}", SPLIT):
        if not (folder / name).is_file():
            raise InputError(f"found no {name} there, {made_by}")
    data, split = Prepared(folder / PREPARED), read_split(folder / SPLIT)
    unknown = {*split.train, *split.val, *split.test} - data.cases.keys()
    if unknown:
        raise InputError(f"found case {min(unknown)} in {SPLIT} and not in {PREPARED}, {made_by}")
    return data


def _on_data(config: Config, folder: Path, data: Prepared) -> Config:
    """The config of the study on one data set: the pipeline's own, with its paths and its section `data` replaced.

    Names of runs have the data's sha256 and the split, and not this section.
    """
    paths = {"paths.prepared": str(folder / PREPARED), "paths.split": str(folder / SPLIT)}
    changes: Overrides = {**paths, **NOT_READ, "study.data": [], "data.spatial_dims": data.spatial_dims}
    if data.spacing is None:
        changes |= {"data.grid": "resize", "data.size": [*data.size]}
    else:
        rows, columns, slices = data.spacing
        changes |= {"data.grid": "spacing", "data.spacing": [columns, rows, slices]}  # x, y, z
    if data.intensity is not None:
        changes["data.intensity"] = data.intensity
    own = config.override(changes, where="params")
    for name in own.study.chosen:
        _check_weights(own.arm(name), data)
    return own


def _check_weights(arm: Config, data: Prepared) -> None:
    """Raise InputError unless weights of classes that are given as numbers are as many as the classes."""
    if arm.training.class_weights != "auto":
        class_weights(arm.training, data.scheme, (), torch.device("cpu"))


def described(config: Config) -> list[dict[str, Any]]:
    """What identifies each of `study.data` in study.json: its name, and the sha256 of its data and of its split."""
    return [
        {"name": name, "sha256": Prepared(own.paths.prepared).sha256, "split_sha256": sha256_file(own.paths.split)}
        for name, own in configs_of_data(config).items()
    ]
