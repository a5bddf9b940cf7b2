"""Dataset `folder`: a user's images/ and masks/, matched by file name (data/raw/README.md)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llm4seg.config.schema import FolderData
from llm4seg.datasets.cases import Dataset, RawCase, is_blank, slices
from llm4seg.datasets.image_io import ImageData, is_lossy, read_image, read_mask, stem
from llm4seg.utils.errors import InputError

# endings of a mask's name beyond its image's: a_mask.png and a_mask_1.png belong to a.png
_MASK_SUFFIX = re.compile(r"_(mask|segmentation)(_\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class _Pair:
    """An image file and the mask files that belong to it."""

    name: str
    image: Path
    masks: tuple[Path, ...]


def folder(section: FolderData, spatial_dims: int) -> Dataset:
    """Images (2-D) or volumes (3-D; as slices along the last axis where spatial_dims is 2).

    Raises InputError for a missing folder, an image without a mask, a mask without an image, a duplicate name.
    """
    pairs = _pairs(section.path)
    return Dataset(
        name=section.path.name,
        license="the owner's: none is recorded",
        citation="none",
        note="",
        classes=tuple(section.classes),
        cases=(case for pair in pairs for case in _cases(pair, section, spatial_dims)),
        total=len(pairs) if spatial_dims == 3 else None,
    )


def _pairs(root: Path) -> list[_Pair]:
    images = _by_stem(root / "images")
    masks: dict[str, list[Path]] = {name: [] for name in images}
    for path in _files(root / "masks"):
        name = stem(path) if stem(path) in images else _MASK_SUFFIX.sub("", stem(path))
        if name not in images:
            raise InputError(f"{path}: a mask without an image; {root / 'images'} has no {name!r}")
        masks[name].append(path)
    alone = [name for name in images if not masks[name]]
    if alone:
        raise InputError(
            f"{images[alone[0]]}: an image without a mask; {root / 'masks'} has no {alone[0]!r} "
            f"({len(alone)} such images; nothing to segment is a mask of zeros)"
        )
    return [_Pair(name, path, tuple(masks[name])) for name, path in images.items()]


def _files(where: Path) -> list[Path]:
    if not where.is_dir():
        raise InputError(f"{where}: no such folder (data.folder.path must hold images/ and masks/)")
    return sorted(path for path in where.iterdir() if not path.name.startswith("."))


def _by_stem(where: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in _files(where):
        if stem(path) in images:
            raise InputError(f"{path}: duplicate case id {stem(path)!r}, also {images[stem(path)]}")
        images[stem(path)] = path
    return images


def _cases(pair: _Pair, section: FolderData, spatial_dims: int) -> Iterator[RawCase]:
    image = read_image(pair.image)
    case = RawCase(
        id=pair.name,
        group=_group(pair, section.group),
        source=pair.image.relative_to(section.path).as_posix(),
        image=image.values,
        labels=_labels(pair, image, section),
        spacing=image.spacing,
    )
    if case.labels.ndim == spatial_dims:
        yield case
    elif spatial_dims == 2:
        yield from (part for part in slices(case) if not is_blank(part))
    else:
        raise InputError(f"{pair.image}: is 2-D, but data.spatial_dims is 3")


def _group(pair: _Pair, pattern: str | None) -> str:
    if pattern is None:
        return pair.name
    match = re.search(pattern, pair.name)
    if match is None or not match.group(1):
        raise InputError(f"{pair.image}: data.folder.group {pattern!r} does not match {pair.name!r}")
    return match.group(1)


def _labels(pair: _Pair, image: ImageData, section: FolderData) -> np.ndarray:
    """All masks of an image merged, uint8; where two overlap, the later by name wins."""
    labels = np.zeros(image.values.shape[1:], dtype=np.uint8)
    for path in pair.masks:
        mask = read_mask(path)
        if mask.values.shape[1:] != labels.shape:
            raise InputError(f"{path}: size {mask.values.shape[1:]} differs from {labels.shape} of {pair.image}")
        if mask.orientation and image.orientation and mask.orientation != image.orientation:
            raise InputError(f"{path}: oriented {mask.orientation}, but {pair.image} is {image.orientation}")
        added = label_of_value(mask.values[0], section, path)
        labels = np.where(added > 0, added, labels)
    return labels


def label_of_value(mask: np.ndarray, section: FolderData, path: Path) -> np.ndarray:
    """Labels uint8 of mask values by data.folder.classes; a lossy format's values count as the nearest listed value."""
    allowed = np.array([0, *(value for values in section.classes.values() for value in values)])
    found = np.unique(mask)
    unknown = found[~np.isin(found, allowed) & (not is_lossy(path))]
    if len(unknown):
        raise InputError(
            f"{path}: unknown mask value {unknown[0]:g}; allowed: {', '.join(map(str, sorted(allowed)))} "
            "(0 is background, the others are listed in data.folder.classes)"
        )
    labels = np.array([0, *(k for k, values in enumerate(section.classes.values(), 1) for _ in values)], dtype=np.uint8)
    nearest = np.abs(found[:, None].astype(float) - allowed).argmin(axis=1)
    return labels[nearest][np.searchsorted(found, mask)]
