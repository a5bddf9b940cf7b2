"""Dataset `folder`: a user's images/ and masks/, matched by file name (data/raw/README.md)."""

import re
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.config.schema.data import Classes
from llm4seg.datasets.case_files import CaseFiles, name_of, read_cases
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.layouts import looks_like
from llm4seg.datasets.mask_labels import class_names
from llm4seg.utils.errors import InputError

# endings of a mask's name beyond its image's: a_mask.png and a_mask_1.png belong to a.png
_MASK_SUFFIX = re.compile(r"_(mask|segmentation)(_\d+)?$", re.IGNORECASE)
LESION: Classes = {"lesion": (255,)}  # the classes unless data.classes says
_JUNK = ("thumbs.db", "desktop.ini")  # of Windows; what begins with a dot is macOS's
_PARTS = (".raw", ".zraw")  # of .mhd and .nhdr, which name them
_LAST_PART = re.compile(r"[ _.-][^ _.-]+$")


def folder(section: Data) -> Dataset:
    """Images (2-D) or volumes (3-D; as slices across the axis of the largest spacing where spatial_dims is 2).

    Raises InputError for a missing folder, an image without a mask, a mask without an image, a duplicate name.
    """
    pairs, classes = _pairs(section.root, section.folder.group), section.classes or LESION
    return Dataset(
        name=section.root.name,
        license="the owner's: none is recorded",
        citation="none",
        note="",
        classes=class_names(classes),
        cases=read_cases(pairs, section.root, classes, section.spatial_dims),
        total=len(pairs) if section.spatial_dims == 3 else None,
        notices=_patients([pair.id for pair in pairs]) if section.folder.group is None else (),
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


def _pairs(root: Path, group: str | None) -> list[CaseFiles]:
    images = _by_stem(root / "images")
    masks: dict[str, list[Path]] = {name: [] for name in images}
    for path in _files(root / "masks"):
        name = name_of(path) if name_of(path) in images else _MASK_SUFFIX.sub("", name_of(path))
        if name not in images:
            raise InputError(f"{path}: a mask without an image; {root / 'images'} has no {name!r}")
        masks[name].append(path)
    alone = [name for name in images if not masks[name]]
    if alone:
        raise InputError(
            f"{images[alone[0]]}: an image without a mask; {root / 'masks'} has no {alone[0]!r} "
            f"({len(alone)} such images; nothing to segment is a mask of zeros)"
        )
    return [CaseFiles(name, _group(name, path, group), (path,), tuple(masks[name])) for name, path in images.items()]


def _files(where: Path) -> list[Path]:
    if not where.is_dir():
        hint = "; workspaces of `dvc exp run --temp` and `--queue` hold what is committed: `dvc add` it, and commit"
        raise InputError(
            f"{where}: no such folder (data.root must hold images/ and masks/)"
            + hint * (".dvc/tmp/exps" in where.as_posix())
            + (f"; {where.parent} {like}" if (like := looks_like(where.parent, but="folder")) else "")
        )
    return sorted(
        path
        for path in where.iterdir()
        if not path.name.startswith(".") and not path.name.lower().endswith((*_JUNK, *_PARTS))
    )


def _by_stem(where: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in _files(where):
        if name_of(path) in images:
            raise InputError(f"{path}: duplicate case id {name_of(path)!r}, also {images[name_of(path)]}")
        images[name_of(path)] = path
    return images


def _group(name: str, image: Path, pattern: str | None) -> str:
    if pattern is None:
        return name
    match = re.search(pattern, name)
    if match is None or not match.group(1):
        raise InputError(f"{image}: data.folder.group {pattern!r} does not match {name!r}")
    return match.group(1)
