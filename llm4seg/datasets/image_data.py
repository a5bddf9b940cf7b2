"""`ImageData`: what the readers of every format return; and values in the types that all stages compute with."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llm4seg.data.prepared import Unit

# Where rows, columns and pages of a picture run: to the back, the left and the head, as ITK and DICOM place them.
PICTURE_AFFINE = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
FLATTEST = 1e-6  # the smallest of a voxel's sizes relative to its largest; its volume, relative to a box of its sizes
EXACT_FLOAT32 = 2**24  # whole numbers up to this one are exact in float32


@dataclass(frozen=True)
class ImageData:
    """An image file's content in the file's own order of axes: values (C, I, J, K), K = 1 where it is `flat` (2-D).

    `affine` (4, 4) maps indices (i, j, k) to right, anterior, superior in `unit`. `placed` says where it is from:
    the file; a picture, whose rows, columns and pages are taken as PICTURE_AFFINE has them; or a file of a kind that
    has orientations, but says nothing of its own. `lossy`: the format changes values a little when it is written.
    `palette`: the file has indices of colors. `notices`: what users should know of the file, without its name.
    """

    values: np.ndarray
    affine: np.ndarray
    flat: bool
    unit: Unit
    placed: Literal["file", "picture", "unknown"]
    lossy: bool = False
    palette: bool = False
    notices: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape: 2 numbers where the image is flat, else 3."""
        return self.values.shape[1:3] if self.flat else self.values.shape[1:]


def picture(values_CS: np.ndarray, lossy: bool = False, palette: bool = False) -> ImageData:
    """An image without a known place or pixel size: values (C, rows, columns[, pages])."""
    flat = values_CS.ndim == 3
    return ImageData(values_CS[..., None] if flat else values_CS, PICTURE_AFFINE, flat, "px", "picture", lossy, palette)


def checked_affine(affine: np.ndarray, flat: bool) -> np.ndarray:
    """The affine, invertible; a flat image needs no third axis. Raises ValueError otherwise."""
    affine = np.array(affine, dtype=float)
    if flat and not affine[:3, 2].any():
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    finite = bool(np.isfinite(affine).all())
    if not finite or sizes.min() <= FLATTEST * sizes.max() or abs(np.linalg.det(affine[:3, :3] / sizes)) < FLATTEST:
        raise ValueError(
            f"its affine has no inverse: {affine[:3].round(4).tolist()}, allowed: sizes of a voxel above 0, "
            "along three directions"
        )
    return affine


def storable(values: np.ndarray) -> np.ndarray:
    """The same values as uint8, int16, int32 or float32, which every library here can compute with.

    True becomes 255. Raises ValueError for complex numbers, and for whole numbers that float32 would round.
    """
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"values of type {values.dtype}, allowed: whole numbers and floating point")
    for dtype in (np.uint8, np.int16, np.int32):
        if np.can_cast(values.dtype, dtype):
            return values.astype(dtype, copy=False)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    rounded = values.dtype.itemsize > 4 and max(abs(float(low)), abs(float(high))) > EXACT_FLOAT32
    if values.dtype.kind in "iu" or (rounded and bool((values == np.rint(values)).all())):
        limits = np.iinfo(np.int32)
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"whole numbers from {low:g} to {high:g}, allowed: {limits.min} to {limits.max}; save them as float32"
            )
        return values.astype(np.int32)
    with np.errstate(over="ignore"):  # beyond float32: infinite, which the checks of a dataset refuse
        return values.astype(np.float32, copy=False)


def without_alpha(values_CS: np.ndarray, mask: bool) -> np.ndarray:
    """Colors or gray of an image whose last channel is alpha. Of a mask, transparent pixels are background, 0.

    What was drawn in black, or with soft edges in one color, is the alpha channel itself. Raises ValueError where the
    transparent pixels of a mask hide other colors.
    """
    colors, alpha = values_CS[:-1], values_CS[-1]
    one_color = all(np.ptp(channel) == 0 for channel in colors)
    if not mask or (np.ptp(alpha) == 0 and (alpha.flat[0] or not one_color)):  # a channel that says nothing
        return colors
    hidden, full = colors[:, alpha == 0], np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1.0
    if not one_color and hidden.any() and np.ptp(hidden, axis=1).any():
        raise ValueError("its transparent pixels hide several colors, allowed: one; save the mask without alpha")
    soft = bool(((alpha > 0) & (alpha < full)).any())
    shown = np.where(alpha > 0, colors, 0).astype(colors.dtype)
    if one_color and (soft or not shown.any()):
        return alpha[None]
    return shown
