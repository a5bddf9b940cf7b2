"""Cases of published data sets of pictures: RGB images, and masks of one class, white on black."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llm4seg.datasets.cases import RawCase, flat
from llm4seg.datasets.geometry import geometry
from llm4seg.datasets.image_data import ImageData
from llm4seg.datasets.image_io import read_image, read_mask
from llm4seg.utils.errors import InputError

WHITE = 255
MIDDLE = 127  # gray values above are white in masks that JPEG has changed


def picture_case(
    case_id: str, files: Sequence[Path], label: int, group: str | None = None, exact: bool = True
) -> RawCase:
    """A picture (its first file) with `label` where any of its masks is white. Without a `group`, it is one of its own.

    `exact`: masks are 0 and 255; else, and in JPEG masks, white is above the middle of 8 bits. Raises InputError naming
    the file for other values, where all are gray, and where the sizes differ.
    """
    image, source = read_image(files[0]), f"{files[0].parent.name}/{files[0].name}"
    white = np.zeros(image.shape, dtype=bool)
    for path in files[1:]:
        mask = read_mask(path)
        if not mask.flat or not image.flat or mask.shape != image.shape:
            raise InputError(f"{path}: size {_size(mask)} differs from {_size(image)} of {files[0]}")
        white |= _white(mask, path, exact)[..., 0]
    way = geometry(image, None)
    case = RawCase(
        id=case_id,
        group=case_id if group is None else group,
        source=source,
        image=np.broadcast_to(image.values, (3, *image.values.shape[1:])) if len(image.values) == 1 else image.values,
        labels=(white * np.uint8(label))[..., None],
        spacing=way.spacing,
        unit=image.unit,
        notices=() if white.any() or not label else (f"{source}: nothing is marked in its mask",),
        geometry=way,
    )
    return flat(case)


def _size(image: ImageData) -> str:
    return " x ".join(map(str, image.shape))


def _white(mask: ImageData, path: Path, exact: bool) -> np.ndarray:
    """Where a mask is white, boolean (rows, columns, 1)."""
    if mask.lossy or not exact:
        gray: np.ndarray = mask.values.mean(axis=0)
        # of 16 bits, black may be above the middle; of 0 and 1, nothing is
        if gray.min() < 0 or gray.max() > WHITE or 0 < gray.max() <= MIDDLE:
            found = f"{gray.min():g} to {gray.max():g}"
            raise InputError(f"{path}: found {found} in a mask, allowed: 0 to {WHITE}, what is marked above {MIDDLE}")
        return gray > MIDDLE
    other = mask.values[(mask.values != 0) & (mask.values != WHITE)]
    if other.size or (mask.values != mask.values[:1]).any():
        found = f"the value {other[0]}" if other.size else "colors"
        raise InputError(f"{path}: found {found} in a mask, allowed: 0 and 255; a resized copy has others")
    return mask.values[0] == WHITE
