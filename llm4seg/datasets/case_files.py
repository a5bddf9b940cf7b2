"""Cases out of image files and mask files: what `folder` and the published layouts of volumes share."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from llm4seg.config.schema.data import Classes
from llm4seg.datasets.cases import RawCase, SeparateCases, flat, is_blank, slices
from llm4seg.datasets.geometry import TOLERANCE, geometry, in_order_of, slicing_view
from llm4seg.datasets.image_data import ImageData, storable
from llm4seg.datasets.image_io import read_image, read_mask, stem
from llm4seg.datasets.mask_labels import labels_of
from llm4seg.utils.errors import InputError

UNPACKED = 4  # times the bytes of a file that is packed


@dataclass(frozen=True)
class CaseFiles:
    """The image files of a case, which hold one channel or more each, and the mask files that belong to them.

    `channels`: how many there must be in all, where the data set says. `spacing`: in mm, along rows, columns and pages
    of pictures, whose files cannot say.
    """

    id: str
    group: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    channels: int | None = None
    spacing: tuple[float, float, float] | None = None

    def size(self) -> int:
        """About how many bytes the images have in memory, by their files; what is missing counts nothing."""
        files = [file for path in self.images for file in (path.iterdir() if path.is_dir() else [path])]
        return sum(file.stat().st_size * (UNPACKED if file.suffix == ".gz" else 1) for file in files if file.exists())


def name_of(path: Path) -> str:
    """The case's id: the file's name without its ending, composed. Raises InputError as `composed` does."""
    composed(path)
    return unicodedata.normalize("NFC", stem(path))


def composed(path: Path) -> str:
    """A file's name, composed (NFC): macOS decomposes accents, others do not.

    Raises InputError where it is not in UTF-8, which all that is written is.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path.name).decode(errors="backslashreplace")
        raise InputError(f"{path.parent}/{shown}: its name is not in UTF-8; rename it") from None
    return unicodedata.normalize("NFC", path.name)


def read_cases(
    files: Sequence[CaseFiles], root: Path, classes: Classes, spatial_dims: int, regions: bool = False
) -> SeparateCases:
    """Images (2-D) or volumes (3-D; as slices across the axis of the largest spacing where `spatial_dims` is 2).

    `classes`: the mask values of each class; `regions`: whether classes may share values. Raises InputError naming the
    file for a flat image where 3-D is asked for, for channels or masks of another size or place, and for unknown mask
    values.
    """
    read = partial(_read, root=root, classes=classes, spatial_dims=spatial_dims, regions=regions)
    return SeparateCases(read, files, lambda one: str(one.images[0]), CaseFiles.size)


def _read(files: CaseFiles, root: Path, classes: Classes, spatial_dims: int, regions: bool) -> Iterator[RawCase]:
    image = read_channels(files.images)
    if image.flat and spatial_dims == 3:
        raise InputError(f"{files.images[0]}: is 2-D, but data.spatial_dims is 3")
    if files.channels not in (None, len(image.values)):
        raise InputError(f"{files.images[0]}: found {len(image.values)} channels, allowed: {files.channels} a case")
    if files.spacing is not None:
        image = replace(image, affine=image.affine @ np.diag([*files.spacing, 1.0]), unit="mm")
    if image.values.dtype.kind == "f" and (bad := np.count_nonzero(~np.isfinite(image.values))):  # of all slices
        source = _within(root, files.images[0])
        raise InputError(f"{source}: the image of case {files.id!r} has {bad} NaN or infinite values")
    labels, notices = _labels(files, image, root, classes, regions)
    way = geometry(image, slicing_view(image) if spatial_dims == 2 else "axial")
    case = RawCase(
        id=files.id,
        group=files.group,
        source=_within(root, files.images[0]),
        image=way.to_array(image.values),
        labels=way.to_array(labels)[0],
        spacing=way.spacing,
        unit=image.unit,
        notices=tuple(notices),
        geometry=way,
    )
    if image.flat:
        yield flat(case)
    elif spatial_dims == 2:
        yield from (part for part in slices(case) if not is_blank(part))
    else:
        yield case


def _within(root: Path, path: Path) -> str:
    """A file's name in manifests and messages: within the data, or without the folders that lead to it elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else f"{path.parent.name}/{path.name}"


def read_channels(paths: tuple[Path, ...]) -> ImageData:
    """The channels of all image files, which must have one shape and lie at one place."""
    first, *others = [read_image(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        if other.shape != first.shape:
            raise InputError(f"{path}: size {other.shape} differs from {first.shape} of {paths[0]}, another channel")
        off = np.abs(np.linalg.inv(first.affine) @ other.affine - np.eye(4)).max()
        if off > TOLERANCE or other.placed != first.placed:
            raise InputError(
                f"{path}: its affine {other.affine[:3].round(4).tolist()} differs from "
                f"{first.affine[:3].round(4).tolist()} of {paths[0]}, another channel; allowed: one affine a case"
            )
    if not others:
        return first
    notices = (notice for one in (first, *others) for notice in one.notices)
    values = storable(np.concatenate([one.values for one in (first, *others)]))
    return replace(first, values=values, notices=tuple(dict.fromkeys(notices)))


def _labels(
    files: CaseFiles, image: ImageData, root: Path, classes: Classes, regions: bool
) -> tuple[np.ndarray, list[str]]:
    """All masks of an image merged, uint8 (1, I, J, K), and notices; where two overlap, the later by name wins."""
    labels = None
    source = _within(root, files.images[0])
    notices = [f"{source} {notice}" for notice in image.notices]
    for path in files.masks:
        mask, name = read_mask(path), _within(root, path)
        mask = replace(mask, values=labels_of(mask, classes, path, regions))
        try:
            added, notice = in_order_of(image, mask, (name, source))
        except ValueError as error:
            raise InputError(f"{path}: {error}; allowed: the affine of its image") from None
        if added.shape[1:] != image.values.shape[1:]:
            raise InputError(f"{path}: size {mask.shape} differs from {image.shape} of {files.images[0]}")
        labels = added if labels is None else np.where(added > 0, added, labels)
        notices += [f"{name} {each}" for each in mask.notices] + ([notice] if notice else [])
    return np.zeros((1, *image.values.shape[1:]), np.uint8) if labels is None else labels, notices
