"""The cases in a file or a folder of images: which files belong together, and what their masks are named."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm4seg.datasets.case_files import name_of
from llm4seg.datasets.folder_files import entries
from llm4seg.datasets.image_io import is_image
from llm4seg.predict.dicom_series import is_dicom, series_in
from llm4seg.utils.errors import InputError

CHANNEL = re.compile(r"^(.+)_(\d{4})$")  # of a file of one channel, as nnU-Net names it


@dataclass(frozen=True)
class InputCase:
    """An image to segment. `id`: the path of its outputs without their endings, by `/`; `source`: its name in messages.

    `files`: those of its channels in order, or, of a DICOM series (`dicom`), those of its slices.
    """

    id: str
    source: str
    files: tuple[Path, ...]
    dicom: bool = False


def find_cases(where: Path, channels: int, out: Path) -> tuple[list[InputCase], list[str]]:
    """The cases in a file or folder and all folders in it, but for the folder `out`; and notices on what is left out.

    Files `NAME_0000.nii.gz` to that of the last of the model's `channels` are one case, NAME, as in nnU-Net; with one
    channel `_0000` alone is left out of the name. Each DICOM series is a case. Raises InputError where there is no
    case, and where two would have one name.
    """
    if not where.exists():
        raise InputError(f"{where}: no such file or folder")
    if where.is_file():
        return [_of_file(where, channels)], []
    found: list[InputCase] = []
    left_out: list[str] = []
    for name, inner, _ in os.walk(where):
        folder = Path(name)
        inner[:] = sorted(one for one in inner if not one.startswith(".") and not _same(folder / one, out))
        files = [path for path in entries(folder) if path.is_file()]
        within = folder.relative_to(where)
        pictures = [path for path in files if not is_dicom(path)]
        found += [_named(one, within) for one in _of_images(filter(is_image, pictures), channels)]
        slices = [path for path in files if path not in set(pictures)]
        cases, kinds = _of_series(folder, within, slices)
        found, left_out = found + cases, left_out + kinds
    if not found:
        raise InputError(f"{where}: found no image; allowed: NIfTI, NRRD, MetaImage, DICOM, PNG, JPG, BMP or TIFF")
    _check_names(found)
    kinds_in_words = ", ".join(sorted(set(left_out)))
    return found, [f"{len(left_out)} DICOM series of other kinds are left out: {kinds_in_words}"] if left_out else []


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _of_file(path: Path, channels: int) -> InputCase:
    """The case of a file, with the files of its other channels beside it."""
    if is_dicom(path):
        return InputCase(path.name.removesuffix(path.suffix), str(path), (path,), dicom=True)
    if not is_image(path):
        raise InputError(f"{path}: not an image; allowed: NIfTI, NRRD, MetaImage, DICOM, PNG, JPG, BMP or TIFF")
    beside = [one for one in entries(path.parent) if one.is_file() and is_image(one)]
    return next(case for case in _of_images({*beside, path}, channels) if path in case.files)


def _of_images(paths: Iterable[Path], channels: int) -> list[InputCase]:
    """Cases of image files of one folder, by name."""
    groups: dict[str, dict[str, Path]] = {}
    for path in paths:
        name = name_of(path)
        match = CHANNEL.match(name)
        base, number = (match[1], match[2]) if match else (name, "")
        groups.setdefault(f"{base}/{path.suffix.lower()}", {})[number] = path
    wanted = [f"{channel:04d}" for channel in range(channels)]
    cases = []
    for key, group in groups.items():
        if sorted(group) == wanted:
            files = tuple(group[number] for number in wanted)
            cases.append(InputCase(key.rpartition("/")[0], str(files[0]), files))
        else:
            cases += [InputCase(name_of(path), str(path), (path,)) for path in group.values()]
    return sorted(cases, key=lambda case: case.id)


def _named(case: InputCase, within: Path) -> InputCase:
    return InputCase((within / case.id).as_posix(), case.source, case.files, case.dicom)


def _of_series(folder: Path, within: Path, files: Sequence[Path]) -> tuple[list[InputCase], list[str]]:
    """A case a DICOM series: named after its folder, where that holds one series of several files and no more."""
    if not files:
        return [], []
    series, left_out = series_in(files)
    if len(series) == 1 and len(series[0].files) > 1:
        name = within.as_posix() if within.parts else folder.resolve().name
        return [InputCase(name, str(folder), series[0].files, dicom=True)], left_out
    cases = []
    for one in series:
        source = f"{folder} ({one.name})" if len(one.files) > 1 else str(one.files[0])
        cases.append(InputCase((within / one.name).as_posix(), source, one.files, dicom=True))
    return cases, left_out


def _check_names(cases: Sequence[InputCase]) -> None:
    known: dict[str, InputCase] = {}
    for case in cases:
        if (other := known.setdefault(case.id, case)) is not case:
            raise InputError(f"{case.source}: its mask would have the name of that of {other.source}; rename one")
