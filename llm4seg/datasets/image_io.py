"""Readers of PNG, JPG, TIFF and NIfTI: (channels, rows, columns[, slices]) arrays with their spacing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class ImageData:
    """An image file's content: values (C, *shape), and spacing in mm along each axis (1 where the file has none).

    `orientation` is NIfTI's axis codes, such as "RAS"; None for other formats.
    """

    values: np.ndarray
    spacing: tuple[float, ...]
    orientation: str | None = None


def read_image(path: Path) -> ImageData:
    """Read an image file. Raises InputError naming the file when it is missing or cannot be read."""
    return _read(path, labels=False)


def read_mask(path: Path) -> ImageData:
    """Read a mask file, as one channel. Palette files have their indices; channels of a color file must be equal."""
    image = _read(path, labels=True)
    if not (image.values == image.values[:1]).all():
        raise InputError(f"{path}: a mask must be grey, found {len(image.values)} channels that differ")
    return replace(image, values=image.values[:1])


def stem(path: Path) -> str:
    """The file's name without its extension: `a.nii.gz` and `a.png` are both `a`."""
    return path.name[: -len(_format(path))]


def is_lossy(path: Path) -> bool:
    """Whether the format changes values a little when it is written."""
    return _format(path) in (".jpg", ".jpeg")


def _format(path: Path) -> str:
    for ending in _READERS:
        if path.name.lower().endswith(ending):
            return ending
    raise InputError(f"{path}: not a known image format; allowed: {', '.join(_READERS)}")


def _read(path: Path, labels: bool) -> ImageData:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    reader = _READERS[_format(path)]
    try:
        image = reader(path, labels)
    except Exception as error:  # every format has its own exceptions for a broken file
        raise InputError(f"{path}: cannot be read as an image: {error}") from error
    if not 2 <= image.values.ndim - 1 <= 3 or not image.values.size:
        raise InputError(f"{path}: found an image of shape {image.values.shape[1:]}, allowed: 2 or 3 dimensions")
    return replace(image, values=storable(image.values))


def storable(values: np.ndarray) -> np.ndarray:
    """The same values as uint8, int16, int32 or float32, which every library here can compute with."""
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    for dtype in (np.uint8, np.int16, np.int32):
        if np.can_cast(values.dtype, dtype):
            return values.astype(dtype)
    fits = values.dtype.kind in "iu" and np.abs(values).max() <= np.iinfo(np.int32).max
    return values.astype(np.int32 if fits else np.float32)


def _pillow(path: Path, labels: bool) -> ImageData:
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        gray = image.mode in ("1", "L", "LA") or image.mode.startswith(("I", "F"))
        if image.mode in ("1", "LA"):
            image = image.convert("L")  # 1 bit: 0 and 255
        elif not gray and not (labels and image.mode == "P"):
            image = image.convert("RGB")
        values = np.array(image)
    return ImageData(values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0), (1.0, 1.0))


def _tiff(path: Path, labels: bool) -> ImageData:
    """Samples (colors) are channels; pages are slices, along the last axis."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        values, axes = file.series[0].asarray(), file.series[0].axes
    channel = next((axes.index(name) for name in "SC" if name in axes), None)
    values = values[None] if channel is None else np.moveaxis(values, channel, 0)
    if values.ndim == 4:
        values = np.moveaxis(values, 1, -1)
    return ImageData(values, (1.0,) * (values.ndim - 1))


def _nifti(path: Path, labels: bool) -> ImageData:
    """Turned by 90 degrees in the plane, since NIfTI's first axis runs along an image's rows. A 4th axis: channels."""
    import nibabel

    file: Any = nibabel.load(path)
    values = np.asanyarray(file.dataobj)
    values = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]
    spacing = [float(size) for size in file.header.get_zooms()[: values.ndim - 1]]
    orientation = "".join(nibabel.aff2axcodes(file.affine))
    return ImageData(np.rot90(values, axes=(1, 2)).copy(), (spacing[1], spacing[0], *spacing[2:]), orientation)


_READERS: dict[str, Callable[[Path, bool], ImageData]] = {
    ".png": _pillow,
    ".jpg": _pillow,
    ".jpeg": _pillow,
    ".tif": _tiff,
    ".tiff": _tiff,
    ".nii": _nifti,
    ".nii.gz": _nifti,
}
