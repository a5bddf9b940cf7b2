"""Image files by their endings, and folders of DICOM files: which reader reads which, and one line for any other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from llm4seg.datasets.image_data import ImageData, storable
from llm4seg.datasets.itk_io import itk_header, read_dicom_series, read_itk
from llm4seg.datasets.nifti_io import nifti_header, read_nifti
from llm4seg.datasets.picture_io import read_picture, read_tiff
from llm4seg.utils.errors import InputError

_READERS: dict[str, Callable[[Path, bool], ImageData]] = {
    ".png": read_picture,
    ".jpg": read_picture,
    ".jpeg": read_picture,
    ".bmp": read_picture,
    ".tif": read_tiff,
    ".tiff": read_tiff,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_itk,
    ".nhdr": read_itk,
    ".mha": read_itk,
    ".mhd": read_itk,
    ".dcm": read_itk,
}
_HEADERS: dict[str, Callable[[Path], ImageData]] = {
    ".nii": nifti_header,
    ".nii.gz": nifti_header,
    ".nrrd": itk_header,
    ".nhdr": itk_header,
    ".mha": itk_header,
    ".mhd": itk_header,
}


def read_image(path: Path) -> ImageData:
    """Read an image file or a folder of DICOM files. Raises InputError naming it when it is missing or unreadable."""
    return _read(path, mask=False)


def read_mask(path: Path) -> ImageData:
    """Read a mask file: one channel, or three of colors that differ. Palettes are their colors."""
    image = _read(path, mask=True)
    if (image.values == image.values[:1]).all():
        return replace(image, values=image.values[:1])
    return image


def read_header(path: Path) -> ImageData | None:
    """The size and place of an image without its values, in the place of which there is a channel of zeros.

    None where the header alone does not say: of pictures and DICOM, and of a file that cannot be read, which
    `read_image` refuses by name.
    """
    reader = next((_HEADERS[ending] for ending in _HEADERS if path.name.lower().endswith(ending)), None)
    if reader is None or not path.is_file():
        return None
    try:
        return reader(path)
    except Exception:  # as in `_read`
        return None


def is_image(path: Path) -> bool:
    """Whether the name ends as image files do that can be read."""
    return path.name.lower().endswith(tuple(_READERS))


def stem(path: Path) -> str:
    """The name without its extension: `a.nii.gz`, `a.png` and a folder `a` of DICOM files are all `a`."""
    return path.name if path.is_dir() else path.name[: -len(_format(path))]


def _format(path: Path) -> str:
    for ending in _READERS:
        if path.name.lower().endswith(ending):
            return ending
    raise InputError(f"{path}: not a known image format; allowed: {', '.join(_READERS)}")


def _read(path: Path, mask: bool) -> ImageData:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    reader = read_dicom_series if path.is_dir() else _READERS[_format(path)]
    try:
        image = reader(path, mask)
        values = storable(image.values)
    except Exception as error:  # every format has its own exceptions for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an image: {reason}") from error
    if values.ndim != 4 or not values.size:
        raise InputError(f"{path}: found an image of shape {image.shape}, allowed: 2 or 3 dimensions")
    return replace(image, values=values)
