"""Pairs of images/ and masks/ by equal names, one image file a case or one a channel (`_0000`, `_0001`, ...)."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from llm4seg.datasets.case_files import name_of
from llm4seg.datasets.folder_files import ALL_CHANNELS, Found, entries, pairs_of
from llm4seg.utils.errors import InputError

# endings of a mask's name beyond its image's: a_mask.png and a_mask_1.png belong to a.png
_MASK_SUFFIX = re.compile(r"_(mask|segmentation)(_\d+)?$", re.IGNORECASE)
_CHANNEL = re.compile(r".+_\d{4}", re.DOTALL)


def cases_by_name(root: Path) -> list[Found]:
    """The cases of a folder's images/ and masks/, in the order of their names; a case may have several masks.

    Raises InputError for a missing folder, an image without a mask, a mask without an image, a duplicate name.
    """
    images = {name: {ALL_CHANNELS: path} for name, path in _by_name(root / "images").items()}
    found = entries(root / "masks")
    if _are_channels(images, found):
        images = _by_channel(images)
    masks: dict[str, list[Path]] = {}
    for path in found:
        masks.setdefault(_case_of(path, images), []).append(path)
    lacks = (f"{root / 'masks'} has no '{{id}}'", f"{root / 'images'} has no '{{id}}'")
    return pairs_of(images, masks, lacks)


def _by_name(folder: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in entries(folder):
        if name_of(path) in images:
            raise InputError(f"{path}: duplicate case id {name_of(path)!r}, also {images[name_of(path)]}")
        images[name_of(path)] = path
    return images


def _case_of(mask: Path, names: Collection[str]) -> str:
    """The name of a mask's case, which is its own, or without its ending as a mask."""
    return name_of(mask) if name_of(mask) in names else _MASK_SUFFIX.sub("", name_of(mask))


def _are_channels(images: Mapping[str, Mapping[str, Path]], masks: Collection[Path]) -> bool:
    """Whether names of images end in a channel's number, and those of masks do not.

    Images may end in such a number that is none: then more masks have their full names.
    """
    if not all(map(_CHANNEL.fullmatch, images)):
        return False
    cases = _by_channel(images)
    of_cases, of_files = (sum(_case_of(path, names) in names for path in masks) for names in (cases, images))
    return of_cases > of_files


def _by_channel(images: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, Path]]:
    """The files of each case by channel, out of names that all end in one."""
    found: dict[str, dict[str, Path]] = {}
    for name, files in images.items():
        case, _, channel = name.rpartition("_")
        found.setdefault(case, {})[channel] = files[ALL_CHANNELS]
    return found
