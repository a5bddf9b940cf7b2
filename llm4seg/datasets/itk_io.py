"""Readers of NRRD, MetaImage and DICOM: SimpleITK. Of DICOM only pixels and geometry are read, no identifier."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.data.prepared import Unit
from llm4seg.datasets.image_data import ImageData, checked_affine
from llm4seg.datasets.itk_headers import EVEN, check_dicom, is_oriented, millimeters
from llm4seg.utils.extras import require

TO_RAS = np.diag([-1.0, -1, 1, 1])  # ITK's coordinates run to the left and the back
TILT = 0.5  # how far slices may be shifted within their planes, in pixels
UNEVEN = 0.2  # how far a slice may be from its place among equal distances, in these; headers round. One missing: 0.25


def read_itk(path: Path, mask: bool) -> ImageData:
    """An NRRD, MetaImage or single DICOM file. Components, or a fourth axis, are channels.

    Raises ValueError where its header has sizes of voxels that cannot be.
    """
    if path.suffix.lower() == ".dcm":
        sized = check_dicom(_information(path), of_series=False)
        return _image_data(_pixels(str(path)), 1.0 if sized else None)
    known = millimeters(path)
    image = _image_data(_pixels(str(path)), known)
    return image if is_oriented(path) else replace(image, placed="unknown")


def read_dicom_series(folder: Path, mask: bool) -> ImageData:
    """A folder with the slices of a DICOM series; of several series that with most slices.

    Raises ValueError where no series is the largest, and where slices are missing, stand twice or are turned against
    each other.
    """
    reader = _sitk().ImageSeriesReader
    series = [reader.GetGDCMSeriesFileNames(str(folder), name) for name in reader.GetGDCMSeriesIDs(str(folder))]
    sizes = sorted(map(len, series), reverse=True)
    if len(sizes) > 1 and sizes[0] == sizes[1]:
        raise ValueError(
            f"holds {sizes.count(sizes[0])} DICOM series of {sizes[0]} slices, allowed: one series a folder"
        )
    notice = f"holds {len(sizes)} DICOM series, of {', '.join(map(str, sizes))} slices: the largest is read"
    return read_dicom_slices(
        [Path(name) for name in max(series, key=len, default=())], (notice,) if len(sizes) > 1 else ()
    )


def read_dicom_slices(files: Sequence[Path], notices: tuple[str, ...] = ()) -> ImageData:
    """The files of one DICOM series, in any order, as a volume; errors as of `read_dicom_series`."""
    if not files:
        raise ValueError("a folder without DICOM files, allowed: the slices of a series")
    slices = [_information(path) for path in files]
    sized = [check_dicom(one, of_series=len(files) > 1) for one in slices]
    names = [str(path) for path in files]
    if len(files) > 1 and len(slices[0].GetOrigin()) == 3:
        order, notice = _in_order(slices)
        names, notices = [names[place] for place in order], (*notices, *notice)
    return _image_data(_pixels(names if len(names) > 1 else names[0]), 1.0 if all(sized) else None, notices)


def _sitk() -> Any:
    require("SimpleITK", "NRRD, MetaImage or DICOM")
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what it warns of ends in an error, or does not matter
    return SimpleITK


def _information(path: Path) -> Any:
    """What a file's header says, as a reader of ITK."""
    reader = _sitk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ValueError(_reason(error)) from None
    return reader


def _pixels(names: str | list[str]) -> Any:
    try:
        return _sitk().ReadImage(names)
    except RuntimeError as error:
        raise ValueError(_reason(error)) from None


def _reason(error: RuntimeError) -> str:
    """ITK's own words, without the places in its source and in memory, and without what it quotes of the file."""
    if "determinant is 0" in str(error):
        return "the directions of its axes have no inverse, allowed: three that differ"
    words = re.split(r"ERROR: (?:\w+\(0x[0-9a-f]+\): )?", str(error), flags=re.IGNORECASE)[-1]
    own = re.sub(r'0x[0-9a-f]{6,}|".*"', "...", words, flags=re.DOTALL)
    return f"{' '.join(own.split())}; the file is damaged, or of another format"


def _in_order(slices: Sequence[Any]) -> tuple[list[int], tuple[str, ...]]:
    """The order of a series' slices, and a notice where they are shifted against each other.

    Raises ValueError unless they are equally large and turned, and lie at equal distances.
    """
    for what, several in (
        ("sizes of {} pixels", [one.GetSize()[:2] for one in slices]),
        ("pixels of {} mm", [one.GetSpacing()[:2] for one in slices]),
    ):
        if off := [one for one in several if not np.allclose(one, several[0], rtol=EVEN * EVEN)]:
            both = " and ".join(" x ".join(f"{size:.6g}" for size in one) for one in (several[0], off[0]))
            raise ValueError(f"its slices have {what.format(both)}, allowed: one size a series")
    turns = np.array([one.GetDirection() for one in slices])
    if np.abs(turns - turns[0]).max() > EVEN:
        raise ValueError("its slices are turned against each other, allowed: one orientation a series")
    places = np.array([one.GetOrigin() for one in slices]) @ turns[0].reshape(3, 3)
    order = np.argsort(places[:, 2], kind="stable")
    _check_distances(places[order, 2])
    shift = np.abs((places[order] - places[order[0]])[:, :2]).max()
    if shift <= TILT * min(slices[0].GetSpacing()[:2]):
        return order.tolist(), ()
    return order.tolist(), (
        f"has slices that are shifted by up to {shift:.3g} mm within their planes, as of a tilted gantry: "
        "they are taken to lie straight above each other",
    )


def _check_distances(heights: np.ndarray) -> None:
    """Raise ValueError unless heights in mm, which grow, are at equal distances, but for the rounding of headers."""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    if steps.min() < EVEN * max(usual, 1e-6):
        raise ValueError(f"two slices lie at {heights[steps.argmin()]:.4g} mm, allowed: one; keep one series a folder")
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() > UNEVEN * (even[1] - even[0]):
        odd = int(np.abs(steps - usual).argmax())
        between = f"between {heights[odd]:.4g} and {heights[odd + 1]:.4g} mm"
        raise ValueError(f"slices are {usual:.4g} mm apart, but {steps[odd]:.4g} mm {between}: is one missing?")


def _image_data(image: Any, known: float | None, notices: tuple[str, ...] = ()) -> ImageData:
    """`known`: millimeters in the unit of the image's sizes; None where they are not known."""
    dimension, channels = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if dimension not in (2, 3, 4) or (dimension == 4 and channels > 1):
        raise ValueError(f"{dimension} dimensions with {channels} components, allowed: 2 or 3, or a fourth of channels")
    values = _sitk().GetArrayFromImage(image)  # MONOCHROME1, where 0 is white, comes inverted
    values = values if channels > 1 else values[..., None]  # (..., k, j, i, channels)
    if dimension == 4:
        values = np.moveaxis(values, 0, -1)[..., 0, :]
    elif dimension == 2:
        values = values[None]
    return _placed(image, values.transpose(3, 2, 1, 0), known, notices)


def itk_header(path: Path) -> ImageData:
    """What an NRRD's or MetaImage's header says: its shape, with a channel of zeros that take no memory; its affine."""
    known = millimeters(path)
    header = _information(path)
    shape = [*header.GetSize(), 1][:3]
    return _placed(header, np.broadcast_to(np.uint8(0), (1, *shape)), known)


def _placed(header: Any, values_CS: np.ndarray, known: float | None, notices: tuple[str, ...] = ()) -> ImageData:
    """Values with the affine of an image of ITK, or of a reader that has read its header."""
    dimension = header.GetDimension()
    affine, used = np.eye(4), min(dimension, 3)
    direction = np.array(header.GetDirection()).reshape(dimension, dimension)[:used, :used]
    affine[:used, :used] = direction * header.GetSpacing()[:used]
    affine[:used, 3] = header.GetOrigin()[:used]
    flat = dimension == 2
    unit: Unit = "px" if known is None else "mm"
    affine = checked_affine(np.diag([*[known or 1.0] * 3, 1.0]) @ TO_RAS @ affine, flat)
    return ImageData(values_CS, affine, flat, unit, "file", notices=notices)
