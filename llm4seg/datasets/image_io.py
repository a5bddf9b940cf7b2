"""Image files by their endings: which reader reads which, and one line for any file that cannot be read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from llm4seg.datasets.image_data import ImageData, storable
from llm4seg.datasets.picture_io import read_picture, read_tiff
from llm4seg.datasets.volume_io import read_nifti
from llm4seg.utils.errors import InputError

_READERS: dict[str, Callable[[Path, bool], ImageData]] = {
    ".png": read_picture,
    ".jpg": read_picture,
    ".jpeg": read_picture,
    ".tif": read_tiff,
    ".tiff": read_tiff,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
}


def read_image(path: Path) -> ImageData:
    """Read an image file. Raises InputError naming the file when it is missing or cannot be read."""
    return _read(path, mask=False)


def read_mask(path: Path) -> ImageData:
    """Read a mask file: one channel, or three of colors that differ. Palettes are their colors."""
    image = _read(path, mask=True)
    if (image.values == image.values[:1]).all():
        return replace(image, values=image.values[:1])
    return image


def stem(path: Path) -> str:
    """The file's name without its extension: `a.nii.gz` and `a.png` are both `a`."""
    return path.name[: -len(_format(path))]


def _format(path: Path) -> str:
    for ending in _READERS:
        if path.name.lower().endswith(ending):
            return ending
    raise InputError(f"{path}: not a known image format; allowed: {', '.join(_READERS)}")


def _read(path: Path, mask: bool) -> ImageData:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    reader = _READERS[_format(path)]
    try:
        image = reader(path, mask)
        values = storable(image.values)
    except Exception as error:  # every format has its own exceptions for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image: {reason}") from error
    if values.ndim != 4 or not values.size:
        raise InputError(f"{path}: found an image of shape {image.shape}, allowed: 2 or 3 dimensions")
    return replace(image, values=values)
