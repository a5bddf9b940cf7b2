"""dataset.json in its dialects: of the Medical Segmentation Decathlon, which nnU-Net v1 shares, and of nnU-Net v2."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm4seg.config.schema.data import BACKGROUND, MOST_CLASSES, Classes
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

NAME = "dataset.json"


def read_dataset_json(path: Path) -> dict[str, Any]:
    """The file's content. Raises InputError naming it where it is no JSON object."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: found {type(values).__name__}, allowed: an object with labels")
    return values


def text_of(values: Mapping[str, Any], *keys: str, otherwise: str) -> str:
    """The first of these entries that is a text; owners spell some of them in two ways."""
    return next((text for key in keys if isinstance(text := values.get(key), str) and text.strip()), otherwise)


def classes_of(values: Mapping[str, Any], path: Path) -> Classes:
    """The mask value of each class, in the order of the values; spaces in names become underscores.

    Labels are {"1": name} (Decathlon, nnU-Net v1) or {name: 1} (nnU-Net v2, told by its `channel_names`); 0 is
    background. Raises InputError for regions and an ignore label, which are not supported, and for any other form.
    """
    labels = values.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise InputError(f'{path}: found labels {labels!r}, allowed: {{"0": "background", "1": name}} or the reverse')
    pairs = labels.items() if "channel_names" in values else ((name, value) for value, name in labels.items())
    name_of: dict[int, str] = {}
    for name, value in pairs:
        if isinstance(value, list) or "regions_class_order" in values:
            raise InputError(
                f"{path}: found the regions {labels}, which are not supported yet; allowed: one value a class"
            )
        if not isinstance(name, str) or not re.fullmatch(r"\d+", str(value)) or int(value) in name_of:
            raise InputError(f"{path}: found the label {name!r}: {value!r}, allowed: a name and its own whole number")
        if name.lower() == "ignore":
            raise InputError(f"{path}: found the label ignore ({value}), which is not supported yet; allowed: classes")
        name_of[int(value)] = "_".join(name.split())
    named: Classes = {name_of[value]: (value,) for value in sorted(name_of) if value}
    if not named or BACKGROUND in named or len(named) > MOST_CLASSES or len(named) < len(set(name_of) - {0}):
        raise InputError(
            f"{path}: found the labels {labels}, allowed: 1 to {MOST_CLASSES} classes that differ, but for 0"
        )
    return named


def listed(values: Mapping[str, Any], key: str, path: Path) -> list[tuple[Path, Path]]:
    """The image and label of each entry of a list such as `training`, in full; none where there is no such list.

    Raises InputError for an entry without both, and for paths that leave the folder.
    """
    found, entries = [], values.get(key, [])
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(part), str) for part in ("image", "label")):
            raise InputError(f"{path}: found {entry!r} in {key}, allowed: an image and its label, both paths")
        image, label = (Path(os.path.normpath(path.parent / entry[part])) for part in ("image", "label"))
        for one in (image, label):
            if not one.is_relative_to(os.path.normpath(path.parent)):
                raise InputError(f"{path}: found {entry!r} in {key}, allowed: paths within its folder")
        found.append((image, label))
    return found
