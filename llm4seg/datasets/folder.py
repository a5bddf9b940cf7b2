"""Dataset `folder`: a user's own images and masks, by equal names or by patterns (data/raw/README.md)."""

import re
from collections.abc import Sequence
from pathlib import Path

from llm4seg.config.schema import Data, FolderData
from llm4seg.config.schema.data import Classes
from llm4seg.data.prepared import FOLDER_TEST, SplitLists
from llm4seg.datasets.case_files import CaseFiles, read_cases
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.classes import scheme_of
from llm4seg.datasets.equal_names import cases_by_name
from llm4seg.datasets.folder_files import Found, check_channels
from llm4seg.datasets.group_file import read_groups
from llm4seg.datasets.name_patterns import cases_by_pattern
from llm4seg.utils.errors import InputError

LESION: Classes = {"lesion": (255,)}  # the classes unless data.classes says
_LAST_PART = re.compile(r"[ _.-][^ _.-]+$")


def folder(section: Data) -> Dataset:
    """Images (2-D) or volumes (3-D; as slices across the axis of the largest spacing where spatial_dims is 2).

    Cases of `data.folder.test` are the test part of the official split. Raises InputError for a missing folder, an
    image without a mask, a mask without an image, a duplicate name, channels that differ, and a table of groups that
    has not exactly the cases.
    """
    options, classes, order = section.folder, section.classes or LESION, section.regions_class_order
    found = _cases(section.root, options, None if options.test is None else section.root / options.test)
    test = _test_cases(section.root, options, found)
    found += test
    check_channels(found)
    groups = _groups(found, section.root, options)
    files = [CaseFiles(one.id, groups[one.id], tuple(one.images.values()), one.masks) for one in found]
    official = SplitLists(f"{FOLDER_TEST}: {options.test}", {"test": tuple(one.id for one in test)})
    return Dataset(
        name=section.root.name,
        license="the owner's: none is recorded",
        citation="none",
        note="",
        cases=read_cases(files, section.root, classes, section.spatial_dims, regions=order is not None),
        total=len(files) if section.spatial_dims == 3 else None,
        files=tuple(one.images[0] for one in files),
        notices=_patients([*groups]) if options.group is None and options.groups is None else (),
        official=official if test else None,
        scheme=scheme_of(classes, order),
    )


def _cases(root: Path, options: FolderData, apart: Path | None) -> list[Found]:
    if options.image is None or options.mask is None:
        return cases_by_name(root)
    return cases_by_pattern(root, options.image, options.mask, apart)


def _test_cases(root: Path, options: FolderData, others: Sequence[Found]) -> list[Found]:
    """The cases of the folder of test images, in the layout that the others have; none where there is no such folder.

    Raises InputError for an id of another case: an image in both would be trained and tested on.
    """
    if options.test is None:
        return []
    where = root / options.test
    if not where.is_dir():
        raise InputError(f"data.folder.test: found {where}, which is no folder; allowed: one inside data.root")
    found, known = _cases(where, options, None), {one.id: one.first for one in others}
    if not found:
        raise InputError(f"data.folder.test: found no image in {where}; allowed: one or more, with masks")
    for one in found:
        if one.id in known:
            raise InputError(
                f"{one.first}: duplicate case id {one.id!r}, also {known[one.id]}; rename one, or delete it if it is "
                "the same image"
            )
    return found


def _groups(cases: Sequence[Found], root: Path, options: FolderData) -> dict[str, str]:
    """The patient of each case: by its name or in the user's table, else itself."""
    if options.groups is not None:
        return read_groups(root / options.groups, [one.id for one in cases])
    return {one.id: _group(one.id, one.first, options.group) for one in cases}


def _group(name: str, image: Path, pattern: str | None) -> str:
    if pattern is None:
        return name
    match = re.search(pattern, name)
    if match is None or not match.group(1):
        raise InputError(f"{image}: data.folder.group {pattern!r} does not match {name!r}")
    return match.group(1)


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
