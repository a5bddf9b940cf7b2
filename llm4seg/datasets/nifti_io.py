"""The reader of NIfTI: nibabel."""

import gzip
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.datasets.image_data import ImageData, checked_affine

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it warns of ends in an error, or does not matter
MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}  # millimeters in a unit of NIfTI's header
SECOND_HEADER = 540  # bytes of NIfTI-2's header, as its first field says


def read_nifti(path: Path, mask: bool) -> ImageData:
    """A NIfTI file with its scaling applied, its affine in mm. A fourth axis, or red, green and blue: channels."""
    import nibabel

    file: Any = _unpacked(path) if path.name.lower().endswith(".gz") else nibabel.load(path)
    values, header = np.asanyarray(file.dataobj), file.header
    flat = values.ndim == 2
    if flat:
        values = values[..., None]
    if values.dtype.names:  # RGB24, RGBA32
        values = np.stack([values[name] for name in "RGB"], axis=-1)
    elif values.ndim == 3:
        values = values[..., None]
    elif values.ndim == 5 and values.shape[3] == 1:  # vectors, at one time
        values = values[:, :, :, 0]
    values_CS = np.moveaxis(values, -1, 0)
    coded = bool(header["sform_code"] or header["qform_code"])
    affine = file.affine if coded else np.diag([*_zooms(header), 1.0])
    affine = checked_affine(affine, flat) * np.array([[MM[header.get_xyzt_units()[0]]]] * 3 + [[1.0]])
    return ImageData(values_CS, affine, flat, "mm", "file" if coded else "unknown")


def _unpacked(path: Path) -> Any:
    """A gzipped NIfTI, read to its end, where the checksum is: a reader that stops at the last voxel misses it."""
    import nibabel

    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"damaged: {error}; copy or download it again") from None
    second = SECOND_HEADER in (int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big"))
    return (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(content)


def _zooms(header: Any) -> list[float]:
    return [float(zoom) for zoom in (*header.get_zooms()[:3], 1.0)[:3]]
