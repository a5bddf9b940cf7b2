"""Whether prepared data fit a trained model, and trained models each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.models.saved import read_metadata
from llm4seg.objectives.losses import out_channels
from llm4seg.utils.errors import InputError


def check_data(folder: Path, data: Prepared) -> None:
    """Raise InputError unless dimensions, channels, spacing, classes and normalization fit a trained model."""
    trained = read_metadata(folder)[0]["data"]
    for what, found, allowed in (
        ("spatial dimensions", data.spatial_dims, trained["spatial_dims"]),
        ("channels", data.channels, trained["channels"]),
    ):
        if found != allowed:
            raise InputError(f"{data.folder}: found {found} {what}, allowed: {allowed}, those of the model in {folder}")
    spacing = None if data.spacing is None else list(data.spacing)
    if spacing != trained.get("spacing"):
        raise InputError(
            f"{data.folder}: found the spacing {spacing} (rows, columns, slices), allowed: {trained.get('spacing')}, "
            f"that of the model in {folder}; set data.grid and data.spacing and run `dvc repro prepare`"
        )
    _check_classes(folder, LabelScheme.parse(trained), data)
    _check_intensities(folder, trained, data)


def check_ensemble(folders: Sequence[Path], data: Prepared) -> None:
    """Raise InputError unless the data fit all models, and these have equally many channels of logits."""
    channels = []
    for folder in folders:
        check_data(folder, data)
        loss = read_metadata(folder)[0]["config"]["training"]["loss"]
        channels.append(out_channels(loss, data.scheme))
        if channels[-1] != channels[0]:
            raise InputError(
                f"{folder}: found {channels[-1]} channels of logits (training.loss {loss}), allowed: {channels[0]}, as "
                f"of the model in {folders[0]}"
            )


def _check_classes(folder: Path, trained: LabelScheme, data: Prepared) -> None:
    """Raise InputError unless the data have the model's classes in its order; of unnamed ones, only as many.

    Those of a checkpoint of the released code have no names.
    """
    names, unnamed = trained.classes, None in trained.classes
    same = len(names) == len(data.classes) if unnamed else names == data.classes
    regions, order = data.scheme.regions, data.scheme.regions_class_order
    if same and (regions, order) == (trained.regions, trained.regions_class_order):
        return
    if same:
        raise InputError(
            f"{data.folder}: found classes that cover the labels {[*regions] or 'one each'}, allowed: "
            f"{[*trained.regions] or 'one each'}, as the model in {folder} was trained"
        )
    allowed = str(len(names)) if unnamed else f"{', '.join(map(str, names))}, in this order"
    raise InputError(
        f"{data.folder}: found the classes {', '.join(data.classes)}, allowed: {allowed}, as the model in {folder} was "
        "trained; name and order data.classes so and run `dvc repro prepare`"
    )


def _check_intensities(folder: Path, trained: dict[str, Any], data: Prepared) -> None:
    """Raise InputError unless images are normalized as in the model's training, as far as both record it."""
    window = None if data.window is None else list(data.window)
    for what, found, allowed in (
        ("data.intensity", data.intensity, trained.get("intensity")),
        ("data.window", window, trained.get("window")),
    ):
        if None not in (found, allowed) and found != allowed:
            raise InputError(
                f"{data.folder}: {what}: found {found}, allowed: {allowed}, as the model in {folder} was trained; "
                "set it and run `dvc repro prepare`"
            )
