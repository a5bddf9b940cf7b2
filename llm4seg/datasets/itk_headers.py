"""Sizes of voxels in the headers of NRRD, MetaImage and DICOM: ITK takes 1 mm where they are missing or wrong."""

import re
from collections.abc import Callable, Sequence
from itertools import zip_longest
from math import hypot, isfinite
from pathlib import Path
from typing import Any

LONGEST_LINE, MOST_LINES = 2**16, 1000  # of a header; beyond, it is none
LENGTHS = {"mm": 1.0, "um": 1e-3, "cm": 10.0, "m": 1000.0}
NAMES = {
    "millimeter": "mm",
    "micrometer": "um",
    "micron": "um",
    "centimeter": "cm",
    "meter": "m",
}  # or British, or many
MICRO = ("\u00b5", "\u03bc")  # the sign and the Greek letter
SPATIAL = ("domain", "space")  # kinds of NRRD's axes
ABOVE_0 = "allowed: a number above 0 for each axis; leave the line out where the sizes are not known"
# of DICOM: the spacing of rows and columns, the first pixel's place, the directions of both
PIXEL_SPACING, POSITION, ORIENTATION = "0028|0030", "0020|0032", "0020|0037"
EVEN = 1e-2  # how far directions may be from unit vectors at a right angle


def millimeters(path: Path) -> float | None:
    """Millimeters in the unit of an NRRD's or MetaImage's sizes; None where the header has no sizes.

    Raises ValueError for sizes that are not above 0, and for places and directions that are no numbers.
    """
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        fields = _fields(path, ":", lambda line: not line)
        return _of_nrrd({name.lower().replace(" ", ""): value for name, value in fields.items()})  # both count as equal
    return _of_metaimage(_fields(path, "=", lambda line: line.startswith("ElementDataFile")))


def is_oriented(path: Path) -> bool:
    """Whether a header says where its axes run: an NRRD of a volume need not."""
    if path.suffix.lower() not in (".nrrd", ".nhdr"):
        return True
    fields = _fields(path, ":", lambda line: not line)
    return "space" in fields or fields.get("dimension") == "2"  # no space that has a name is flat


def _fields(path: Path, sign: str, ends: Callable[[str], bool]) -> dict[str, str]:
    """The lines of a header, `name sign value`, up to its end."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for _ in range(MOST_LINES):
            line = file.readline(LONGEST_LINE).decode("utf-8", errors="replace").strip()
            if ends(line):
                break
            name, _, value = line.partition(sign)
            if not value.startswith("="):  # key:=value, free text of NRRD
                fields[name.strip()] = value.strip()
    return fields


def _of_metaimage(fields: dict[str, str]) -> float | None:
    for name in ("Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation"):
        if not all(map(isfinite, numbers := _numbers(fields.get(name, "")))):
            raise ValueError(f"found {name} {_shown(numbers)}, allowed: numbers")
    for name in ("ElementSpacing", "ElementSize"):
        if name in fields:
            sizes = _numbers(fields[name])
            if not all(map(_is_size, sizes)) or fields.get("NDims") != str(len(sizes)):
                raise ValueError(f"found {name} {_shown(sizes)}, {ABOVE_0}")
            unit = fields.get("DistanceUnits", "?")
            return _unit(set() if unit == "?" else {unit})
    return None


def _of_nrrd(fields: dict[str, str]) -> float | None:
    for vector in _vectors(fields.get("spaceorigin", "")):
        if not all(map(isfinite, numbers := _numbers(vector, ","))):
            raise ValueError(f"found space origin {_shown(numbers, ',')}, allowed: numbers")
    spatial = [kind in SPATIAL for kind in fields.get("kinds", "").split()]
    for name, split, size in (("spacings", str.split, _first), ("space directions", _vectors, hypot)):
        tokens = split(fields.get(name.replace(" ", ""), ""))
        for token, is_spatial in zip_longest(tokens, spatial, fillvalue=None):
            if token is None or is_spatial is False or (token == "none" and is_spatial is None):
                continue  # channels have no size
            if not _is_size(size(*_numbers(token, ","))):
                shown = " ".join(_shown(_numbers(one, ","), ",") for one in tokens)
                raise ValueError(f"found {name} {shown}, {ABOVE_0}")
    if "spacings" not in fields and "spacedirections" not in fields:
        return None
    of_axes = re.findall(r'"([^"]*)"', fields.get("units", ""))
    used = [unit for unit, is_spatial in zip_longest(of_axes, spatial) if unit and is_spatial is not False]
    return _unit({*re.findall(r'"([^"]*)"', fields.get("spaceunits", "")), *used} - {""})


def _unit(units: set[str]) -> float:
    """Millimeters in the one unit that all spatial axes have; none: mm."""
    found = {_short(unit) for unit in units}
    if len(found) > 1 or not found <= set(LENGTHS):
        raise ValueError(f"found the units {', '.join(sorted(units))}, allowed: one of {', '.join(LENGTHS)}")
    return LENGTHS[found.pop()] if found else 1.0


def _short(unit: str) -> str:
    """The short form of a unit's name, in whatever case; others as they are."""
    name = unit.strip().lower().replace("metre", "meter").removesuffix("s")
    for sign in MICRO:
        name = name.replace(sign, "u")
    return NAMES.get(name, name)


def _vectors(text: str) -> list[str]:
    return [one.strip("()") for one in re.findall(r"none|\([^)]*\)", text)]


def _numbers(text: str, sign: str | None = None) -> list[float]:
    """Numbers of a header; what is none is NaN."""
    found = []
    for part in text.split(sign):
        try:
            found.append(float(part))
        except ValueError:
            found.append(float("nan"))
    return found


def _shown(numbers: Sequence[float], sign: str = " ") -> str:
    """Numbers as text, for errors: never a header's own words, beside which others may stand in a damaged file."""
    return sign.join(f"{number:g}" for number in numbers)


def _first(number: float) -> float:
    return number


def _is_size(number: float) -> bool:
    return isfinite(number) and number > 0


def check_dicom(reader: Any, of_series: bool) -> bool:
    """Check a file of DICOM, whose information an ITK reader has read; whether it has the size of its pixels.

    Raises ValueError for sizes that are not above 0 and for directions that are none; of a series, whose slices lie at
    distances in mm, also for what is missing.
    """
    if reader.HasMetaDataKey(ORIENTATION):
        directions = _numbers(reader.GetMetaData(ORIENTATION), "\\")
        if not _is_orientation(directions):
            found = _shown(directions)
            raise ValueError(f"found ImageOrientationPatient {found}, allowed: two unit vectors at a right angle")
    if of_series and not reader.HasMetaDataKey(POSITION):
        raise ValueError("found a slice without ImagePositionPatient, allowed: slices that have one")
    if not reader.HasMetaDataKey(
        PIXEL_SPACING
    ):  # of several frames, of radiographs: where ITK finds other sizes than 1
        known = any(size != 1 for size in reader.GetSpacing()[:2])
        if of_series and not known:
            raise ValueError("found a slice without PixelSpacing, allowed: slices that have one")
        return known
    sizes = _numbers(reader.GetMetaData(PIXEL_SPACING), "\\")
    if len(sizes) != 2 or not all(map(_is_size, sizes)):
        raise ValueError(f"found PixelSpacing {_shown(sizes)}, allowed: two numbers above 0, of rows and of columns")
    return True


def _is_orientation(numbers: Sequence[float]) -> bool:
    if len(numbers) != 6 or not all(map(isfinite, numbers)):
        return False
    rows, columns = numbers[:3], numbers[3:]
    lengths = [hypot(*one) for one in (rows, columns)]
    angle = sum(a * b for a, b in zip(rows, columns, strict=True))
    return all(abs(length - 1) < EVEN for length in lengths) and abs(angle) < EVEN
