"""Readers of NRRD, MetaImage and DICOM: SimpleITK. Of DICOM only pixels and geometry are read, no identifier."""

from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.datasets.image_data import ImageData, checked_affine

TO_RAS = np.diag([-1.0, -1, 1, 1])  # ITK's coordinates run to the left and the back
EVEN = 1e-2  # how much distances of neighboring slices may differ, relative to their median


def read_itk(path: Path, mask: bool) -> ImageData:
    """An NRRD, MetaImage or single DICOM file. Components, or a fourth axis, are channels."""
    return _image_data(_sitk().ReadImage(str(path)))


def read_dicom_series(folder: Path, mask: bool) -> ImageData:
    """A folder with the slices of a DICOM series; of several series that with most slices.

    Raises ValueError where slices are missing, stand twice or are turned against each other.
    """
    sitk = _sitk()
    names = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    series = [sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name) for name in names]
    if not series:
        raise ValueError("a folder without DICOM files, allowed: the slices of a series")
    files = max(series, key=len)
    _check_slices(files)
    image = sitk.ReadImage(files if len(files) > 1 else files[0])
    sizes = sorted(map(len, series), reverse=True)
    notice = f"holds {len(sizes)} DICOM series, of {', '.join(map(str, sizes))} slices: the largest is read"
    return _image_data(image, (notice,) if len(sizes) > 1 else ())


def _sitk() -> Any:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what it warns of ends in an error, or does not matter
    return SimpleITK


def _check_slices(files: tuple[str, ...]) -> None:
    """Raise ValueError unless a series' slices lie side by side, equally turned and at equal distances."""
    sitk = _sitk()
    reader = sitk.ImageFileReader()
    places, turns = [], []
    for file in files:
        reader.SetFileName(file)
        reader.ReadImageInformation()
        places.append(reader.GetOrigin())
        turns.append(reader.GetDirection())
    if len(places[0]) < 3 or len(files) < 2:
        return
    if np.abs(np.array(turns) - turns[0]).max() > EVEN:
        raise ValueError("its slices are turned against each other, allowed: one orientation a series")
    heights = np.sort(np.array(places) @ np.array(turns[0]).reshape(3, 3)[:, 2])
    steps = np.diff(heights)
    usual = float(np.median(steps))
    if steps.min() < EVEN * max(usual, 1e-6):
        raise ValueError(f"two slices lie at {heights[steps.argmin()]:.4g} mm, allowed: one; keep one series a folder")
    if np.abs(steps - usual).max() > EVEN * usual:
        odd = int(np.abs(steps - usual).argmax())
        between = f"between {heights[odd]:.4g} and {heights[odd + 1]:.4g} mm"
        raise ValueError(f"slices are {usual:.4g} mm apart, but {steps[odd]:.4g} mm {between}: is one missing?")


def _image_data(image: Any, notices: tuple[str, ...] = ()) -> ImageData:
    dimension, channels = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if dimension not in (2, 3, 4) or (dimension == 4 and channels > 1):
        raise ValueError(f"{dimension} dimensions with {channels} components, allowed: 2 or 3, or a fourth of channels")
    values = _sitk().GetArrayFromImage(image)  # MONOCHROME1, where 0 is white, comes inverted
    values = values if channels > 1 else values[..., None]  # (..., k, j, i, channels)
    if dimension == 4:
        values = np.moveaxis(values, 0, -1)[..., 0, :]
    elif dimension == 2:
        values = values[None]
    affine, used = np.eye(4), min(dimension, 3)
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:used, :used]
    affine[:used, :used] = direction * image.GetSpacing()[:used]
    affine[:used, 3] = image.GetOrigin()[:used]
    flat = dimension == 2
    affine = checked_affine(TO_RAS @ affine, flat)
    return ImageData(values.transpose(3, 2, 1, 0), affine, flat, "mm", "file", notices=notices)
