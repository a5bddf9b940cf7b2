"""dataset.json in its dialects: of the Medical Segmentation Decathlon, which nnU-Net v1 shares, and of nnU-Net v2."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llm4seg.config.schema.data import BACKGROUND, MOST_CLASSES, Classes, check_regions, class_names
from llm4seg.datasets.classes import scheme_of
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

NAME = "dataset.json"
OWN_NUMBER = "a name and its own whole number"


def read_dataset_json(path: Path) -> dict[str, Any]:
    """The file's content. Raises InputError naming it where it is no JSON object."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: found {type(values).__name__}, allowed: an object with labels")
    return values


def text_of(values: Mapping[str, Any], *keys: str, otherwise: str) -> str:
    """The first of these entries that is a text; owners spell some of them in two ways."""
    return next((text for key in keys if isinstance(text := values.get(key), str) and text.strip()), otherwise)


def classes_of(values: Mapping[str, Any], path: Path) -> tuple[Classes, tuple[int, ...] | None]:
    """The mask values of each class, and nnU-Net's `regions_class_order`, None without regions.

    Labels are {"1": name} (Decathlon, nnU-Net v1) or {name: 1} (nnU-Net v2, told by its `channel_names`), where regions
    are {name: [1, 2]}; 0 is background. Classes are in the order of their values, regions in that of the file, to which
    regions_class_order refers. Spaces in names become underscores; nnU-Net's ignore label stands under `ignore`.
    Raises InputError for any other form.
    """
    order = values.get("regions_class_order")
    classes: Classes = {}
    for name, covered in _labels(values, path, regions=order is not None):
        if covered == (0,):
            continue
        if name in (BACKGROUND, *classes):
            raise InputError(f"{path}: found the labels {values['labels']}, {_allowed()}")
        if order is None and covered in classes.values():
            raise InputError(f"{path}: found the label {name!r}: {covered[0]}, allowed: {OWN_NUMBER}")
        classes[name] = covered
    if not 0 < len(class_names(classes)) <= MOST_CLASSES:
        raise InputError(f"{path}: found the labels {values['labels']}, {_allowed()}")
    if order is None:
        return dict(sorted(classes.items(), key=lambda item: item[1])), None
    if not isinstance(order, list):
        raise InputError(f"{path}: found regions_class_order {order!r}, allowed: a list of labels, one a region")
    try:
        check_regions(classes, order)
        scheme_of(classes, order)
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: {error}") from None
    return classes, tuple(order)


def _labels(values: Mapping[str, Any], path: Path, regions: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The names in `labels` and the values that each covers: one, but for regions."""
    labels = values.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise InputError(f'{path}: found labels {labels!r}, allowed: {{"0": "background", "1": name}} or the reverse')
    pairs = labels.items() if "channel_names" in values else ((name, value) for value, name in labels.items())
    for name, value in pairs:
        covered = value if isinstance(value, list) and value and regions else [value]
        whole = all(re.fullmatch(r"\d+", str(one)) for one in covered)
        if not isinstance(name, str) or not name.strip() or not whole:
            what = "a name and its labels, whole numbers" if regions else OWN_NUMBER
            more = "" if regions or not isinstance(value, list) else "; of regions, with regions_class_order"
            raise InputError(f"{path}: found the label {name!r}: {value!r}, allowed: {what}{more}")
        yield "_".join(name.split()), tuple(map(int, covered))


def _allowed() -> str:
    return f"allowed: 1 to {MOST_CLASSES} classes that differ, but for 0"


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
