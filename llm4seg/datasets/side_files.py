"""The spacing of TIFF images, of which nnU-Net expects it in a side file: CASE.json, {"spacing": [z, y, x]}, in mm."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llm4seg.datasets.image_io import stem
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

_TIFF = (".tif", ".tiff")
_CHANNEL = re.compile(r"_\d{4}$")
LARGEST = 1e6  # mm
EQUAL = 1e-4  # how much the spacings of image and label may differ, relative to them
ALLOWED = 'allowed: {"spacing": [z, y, x]}, three numbers above 0, in mm'

Spacing = tuple[float, float, float]


def is_tiff(path: Path) -> bool:
    return path.name.lower().endswith(_TIFF)


def tiff_spacing(images: Sequence[Path], label: Path) -> Spacing | None:
    """The spacing of a case in TIFF along rows, columns and pages, in mm; None where it has no side file.

    That of the images lies beside them, named without the channel, that of the label beside it. Of a 2-D image, z does
    not count. Raises InputError for a side file of another form, and where both do not agree.
    """
    found = [(path, _read(path)) for path in _side_files(images[0], label) if path.is_file()]
    if not found:
        return None
    (first, spacing), (last, other) = found[0], found[-1]
    if not all(math.isclose(a, b, rel_tol=EQUAL) for a, b in zip(spacing, other, strict=True)):
        raise InputError(f"{last}: found the spacing {_shown(other)}, allowed: {_shown(spacing)}, as in {first}")
    return spacing


def _side_files(image: Path, label: Path) -> Iterator[Path]:
    if is_tiff(image):
        yield image.with_name(f"{_CHANNEL.sub('', stem(image))}.json")
        if is_tiff(label):
            yield label.with_name(f"{stem(label)}.json")


def _read(path: Path) -> Spacing:
    values = read_json(path)
    spacing = values.get("spacing") if isinstance(values, dict) else None
    if not isinstance(spacing, list) or len(spacing) != 3 or not all(map(_is_size, spacing)):
        raise InputError(f"{path}: found {str(values)[:80]}, {ALLOWED}")
    z, y, x = map(float, spacing)
    return y, x, z


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGEST


def _shown(spacing: Spacing) -> list[float]:
    y, x, z = spacing
    return [z, y, x]
