"""The reader of NIfTI: nibabel."""

import gzip
import io
import logging
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.datasets.image_data import ImageData, checked_affine

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it warns of ends in an error, or does not matter
MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}  # millimeters in a unit of NIfTI's header
CHUNK = 2**20  # bytes that are unpacked at a time
SECOND_HEADER = 540  # bytes of NIfTI-2's header, as its first field says


def read_nifti(path: Path, mask: bool) -> ImageData:
    """A NIfTI file with its scaling applied, its affine in mm. A fourth axis, or red, green and blue: channels."""
    import nibabel

    if path.name.lower().endswith(".gz"):
        stream = _unpacked(path)
        content = bytes(stream.getbuffer()[:SECOND_HEADER])
        file = _kind(content).from_stream(stream)
    else:
        with path.open("rb") as opened:
            content = opened.read(SECOND_HEADER)
        file = nibabel.load(path)
    values = np.asanyarray(file.dataobj)
    flat = values.ndim == 2
    if flat:
        values = values[..., None]
    if values.dtype.names:  # RGB24, RGBA32
        values = np.stack([values[name] for name in "RGB"], axis=-1)
    elif values.ndim == 3:
        values = values[..., None]
    elif values.ndim == 5 and values.shape[3] == 1:  # vectors, at one time
        values = values[:, :, :, 0]
    return _image_data(file, np.moveaxis(values, -1, 0), content, flat)


def nifti_header(path: Path) -> ImageData:
    """What a NIfTI file's header says: its shape, with a channel of zeros that take no memory, and its affine in mm."""
    import nibabel

    compressed = path.name.lower().endswith(".gz")
    with gzip.open(path) if compressed else path.open("rb") as opened:
        content = opened.read(SECOND_HEADER)
    file = nibabel.load(path)
    shape = (*file.shape, 1)[:3]
    return _image_data(file, np.broadcast_to(np.uint8(0), (1, *shape)), content, len(file.shape) == 2)


def _image_data(file: Any, values_CS: np.ndarray, content: bytes, flat: bool) -> ImageData:
    """Values with the affine of their file, whose first bytes are `content`."""
    header = file.header
    _check_sizes(header, content)
    coded = bool(header["sform_code"] or header["qform_code"])
    affine = file.affine if coded else np.diag([*_zooms(header), 1.0])
    affine = checked_affine(affine, flat) * np.array([[MM[header.get_xyzt_units()[0]]]] * 3 + [[1.0]])
    return ImageData(values_CS, affine, flat, "mm", "file" if coded else "unknown")


def _unpacked(path: Path) -> io.BytesIO:
    """A gzipped file, read to its end, where the checksum is: a reader that stops at the last voxel misses it."""
    stream = io.BytesIO()
    try:
        with gzip.open(path) as file:
            shutil.copyfileobj(file, stream, CHUNK)
        stream.seek(0)
        return stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"damaged: {error}; copy or download it again") from None


def _kind(content: bytes) -> Any:
    import nibabel

    second = SECOND_HEADER in (int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big"))
    return nibabel.Nifti2Image if second else nibabel.Nifti1Image


def _check_sizes(header: Any, content: bytes) -> None:
    """Raise ValueError where a file's affine is made of sizes (pixdim) that are not above 0: nibabel mends them."""
    if header["sform_code"]:
        return
    as_filed = type(header).from_fileobj(io.BytesIO(content), check=False)
    sizes = as_filed["pixdim"][1 : 1 + min(3, int(header["dim"][0]))]
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"found the voxel sizes (pixdim) {sizes.tolist()}, allowed: numbers above 0")


def _zooms(header: Any) -> list[float]:
    return [float(zoom) for zoom in (*header.get_zooms()[:3], 1.0)[:3]]
