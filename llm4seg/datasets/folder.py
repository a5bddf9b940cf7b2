"""Dataset `folder`: a user's images/ and masks/, matched by file name (data/raw/README.md)."""

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llm4seg.config.schema import Data
from llm4seg.config.schema.data import Classes
from llm4seg.datasets.cases import Dataset, RawCase, flat, is_blank, slices
from llm4seg.datasets.geometry import geometry, in_order_of, slicing_view
from llm4seg.datasets.image_data import ImageData
from llm4seg.datasets.image_io import read_image, read_mask, stem
from llm4seg.datasets.mask_labels import class_names, labels_of
from llm4seg.utils.errors import InputError

# endings of a mask's name beyond its image's: a_mask.png and a_mask_1.png belong to a.png
_MASK_SUFFIX = re.compile(r"_(mask|segmentation)(_\d+)?$", re.IGNORECASE)
LESION: Classes = {"lesion": (255,)}  # the classes unless data.classes says
_JUNK = ("thumbs.db", "desktop.ini")  # of Windows; what begins with a dot is macOS's
_PARTS = (".raw", ".zraw")  # of .mhd and .nhdr, which name them
_LAST_PART = re.compile(r"[ _.-][^ _.-]+$")


@dataclass(frozen=True)
class _Pair:
    """An image file and the mask files that belong to it."""

    name: str
    image: Path
    masks: tuple[Path, ...]


def folder(section: Data) -> Dataset:
    """Images (2-D) or volumes (3-D; as slices across the axis of the largest spacing where spatial_dims is 2).

    Raises InputError for a missing folder, an image without a mask, a mask without an image, a duplicate name.
    """
    pairs = _pairs(section.root)
    return Dataset(
        name=section.root.name,
        license="the owner's: none is recorded",
        citation="none",
        note="",
        classes=class_names(section.classes or LESION),
        cases=(case for pair in pairs for case in _cases(pair, section)),
        total=len(pairs) if section.spatial_dims == 3 else None,
        notices=_patients([pair.name for pair in pairs]) if section.folder.group is None else (),
    )


def _patients(names: list[str]) -> tuple[str, ...]:
    """A hint where names that begin alike, with a number in it, seem to be of one patient."""
    of_start: dict[str, list[str]] = {}
    for name in names:
        of_start.setdefault(_LAST_PART.sub("", name), []).append(name)
    shared = [own for start, own in of_start.items() if len(own) > 1 and start not in own and re.search(r"\d", start)]
    if not shared or len(of_start) == 1:
        return ()
    return (
        f"{shared[0][0]} and {shared[0][1]} count as two patients, as data.folder.group is null; "
        "if what precedes the last part of a name is the patient, set it to ^(.+)[-_. ]",
    )


def _pairs(root: Path) -> list[_Pair]:
    images = _by_stem(root / "images")
    masks: dict[str, list[Path]] = {name: [] for name in images}
    for path in _files(root / "masks"):
        name = _name(path) if _name(path) in images else _MASK_SUFFIX.sub("", _name(path))
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
        hint = "; workspaces of `dvc exp run --temp` and `--queue` hold what is committed: `dvc add` it, and commit"
        raise InputError(
            f"{where}: no such folder (data.root must hold images/ and masks/)"
            + hint * (".dvc/tmp/exps" in where.as_posix())
        )
    paths = sorted(
        path
        for path in where.iterdir()
        if not path.name.startswith(".") and not path.name.lower().endswith((*_JUNK, *_PARTS))
    )
    for path in paths:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(path.name).decode(errors="backslashreplace")
            raise InputError(f"{where}/{shown}: its name is not in UTF-8; rename it") from None
    return paths


def _name(path: Path) -> str:
    """The case's id: the file's name without its ending, composed (NFC): macOS decomposes accents, others do not."""
    return unicodedata.normalize("NFC", stem(path))


def _by_stem(where: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in _files(where):
        if _name(path) in images:
            raise InputError(f"{path}: duplicate case id {_name(path)!r}, also {images[_name(path)]}")
        images[_name(path)] = path
    return images


def _cases(pair: _Pair, section: Data) -> Iterator[RawCase]:
    image, spatial_dims = read_image(pair.image), section.spatial_dims
    if image.flat and spatial_dims == 3:
        raise InputError(f"{pair.image}: is 2-D, but data.spatial_dims is 3")
    labels, notices = _labels(pair, image, section)
    way = geometry(image, slicing_view(image) if spatial_dims == 2 else "axial")
    case = RawCase(
        id=pair.name,
        group=_group(pair, section.folder.group),
        source=pair.image.relative_to(section.root).as_posix(),
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


def _group(pair: _Pair, pattern: str | None) -> str:
    if pattern is None:
        return pair.name
    match = re.search(pattern, pair.name)
    if match is None or not match.group(1):
        raise InputError(f"{pair.image}: data.folder.group {pattern!r} does not match {pair.name!r}")
    return match.group(1)


def _labels(pair: _Pair, image: ImageData, section: Data) -> tuple[np.ndarray, list[str]]:
    """All masks of an image merged, uint8 (1, I, J, K), and notices; where two overlap, the later by name wins."""
    labels = np.zeros((1, *image.values.shape[1:]), dtype=np.uint8)
    notices = [f"{pair.image.relative_to(section.root).as_posix()} {notice}" for notice in image.notices]
    for path in pair.masks:
        mask = read_mask(path)
        mask = replace(mask, values=labels_of(mask, section.classes or LESION, path))
        names = [one.relative_to(section.root).as_posix() for one in (path, pair.image)]
        try:
            added, notice = in_order_of(image, mask, (names[0], names[1]))
        except ValueError as error:
            raise InputError(f"{path}: {error}; allowed: the affine of its image") from None
        if added.shape != labels.shape:
            raise InputError(f"{path}: size {mask.shape} differs from {image.shape} of {pair.image}")
        labels = np.where(added > 0, added, labels)
        notices += [f"{names[0]} {each}" for each in mask.notices] + ([notice] if notice else [])
    return labels, notices
