"""The DICOM series of a folder, and the reader of one of them. Of patients nothing is read here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm4seg.datasets.image_data import ImageData, storable
from llm4seg.datasets.image_io import is_image
from llm4seg.datasets.itk_io import read_dicom_slices
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import require

MAGIC, MAGIC_AT = b"DICM", 128  # where each file of DICOM says that it is one
ENDINGS = (".dcm", ".ima")
TAGS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "ImageType", "Rows"]
NO_IMAGES = ("SEG", "RTDOSE", "PR", "SC")  # kinds that have pixels, too


@dataclass(frozen=True)
class Series:
    """The image files of a series. `name`: `series-3` by its number, or that of its only file."""

    name: str
    files: tuple[Path, ...]


def is_dicom(path: Path) -> bool:
    """Whether a file is named as DICOM, or begins as DICOM does."""
    if path.suffix.lower() in ENDINGS:
        return True
    if is_image(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC
    except OSError:  # may not be read, and says nothing of being an image
        return False


def series_in(files: Sequence[Path]) -> tuple[list[Series], list[str]]:
    """The series of images among files of DICOM, and the kinds of the series that are left out, such as contours.

    A file that cannot be read is a series of its own, so that its reader refuses it by name.
    """
    require("pydicom", "DICOM")
    by_series: dict[str, list[Path]] = {}
    numbers: dict[str, str] = {}
    identifiers: dict[Path, str] = {}
    left_out: dict[str, str] = {}
    for path in files:
        header = _header(path)
        uid = str(header.get("SeriesInstanceUID", path))
        kind = "localizer" if "LOCALIZER" in header.get("ImageType", ()) else str(header.get("Modality", "?"))
        if header.get("SOPClassUID") and ("Rows" not in header or kind in ("localizer", *NO_IMAGES)):
            left_out[uid] = kind
            continue
        by_series.setdefault(uid, []).append(path)
        numbers[uid] = str(header.get("SeriesNumber") or "")
        identifiers[path] = str(header.get("SOPInstanceUID") or "")
    found = []
    for place, (uid, own) in enumerate(by_series.items(), start=1):
        stem = own[0].name.removesuffix(own[0].suffix)
        if len(own) == 1 and not (identifiers[own[0]] and identifiers[own[0]] in own[0].name):
            name = stem  # unless the file is named after its UID, which identifies a patient's examination
        elif numbers[uid].isdigit() and [*numbers.values()].count(numbers[uid]) == 1:
            name = f"series-{numbers[uid]}"
        else:
            name = f"series-{numbers[uid] or 'x'}-{place}"
        found.append(Series(name, tuple(own)))
    return found, [*left_out.values()]


def _header(path: Path) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
    except Exception:  # whatever a damaged file raises: its reader names it
        return {}


def read_series(files: Iterable[Path], source: str) -> ImageData:
    """The volume of a series. Raises InputError, which names it `source`."""
    try:
        image = read_dicom_slices([*files])
        return replace(image, values=storable(image.values))
    except Exception as error:  # every damage has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source}: cannot be read as an image: {reason}") from error
