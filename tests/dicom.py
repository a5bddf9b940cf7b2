"""DICOM series in any orientation, as a scanner writes them, and an RTSTRUCT beside one, as `lung-ct` has it."""

import locale
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

VALUES = np.random.default_rng(0).integers(-1000, 1000, (4, 6, 5), dtype=np.int16)  # slices, rows, columns
NAME = "Doe^Jane"
DIRECTIONS = {
    "LPS": np.eye(3),
    "RAS": np.diag([-1.0, -1, 1]),
    "LAS": np.diag([1.0, -1, 1]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0],
}


def itk_image(direction: np.ndarray, values: np.ndarray = VALUES) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(direction.ravel())
    return image


def save_series(where: Path, image: sitk.Image, series: str = "1") -> None:
    """Slices as a scanner writes them: a file each, with a patient's name."""
    where.mkdir(parents=True, exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = image.GetDirection()
    columns = [direction[k] for k in (0, 3, 6, 1, 4, 7)]
    for k in range(image.GetDepth()):
        one = image[:, :, k]
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        described = {
            "0008|0060": "CT",
            "0010|0010": NAME,
            "0020|000d": "1.2.3",
            "0020|000e": f"1.2.3.{series}",
            "0008|0018": f"1.2.3.{series}.{k + 1}",
            "0020|0032": "\\".join(f"{x:.10g}" for x in place),
            "0020|0037": "\\".join(f"{x:.10g}" for x in columns),
            "0020|0013": str(image.GetDepth() - k),  # counted backwards: places count, not numbers
        }
        for name, value in described.items():
            one.SetMetaData(name, value)
        writer.SetFileName(str(where / f"{series}-{k:02d}.dcm"))
        writer.Execute(one)
    locale.setlocale(locale.LC_ALL, before)  # GDCM leaves "C", by which Python would read texts as ASCII from then on


def ct_patient(folder: Path, direction: np.ndarray) -> tuple[list[Path], np.ndarray]:
    """Files of a patient, and the mask (columns, rows, slices) of the contour: a rectangle in the second slice."""
    values = np.random.default_rng(0).integers(-1000, 1000, (4, 12, 10), dtype=np.int16)
    image = itk_image(direction, values)
    save_series(folder, image)
    corners = [(1.5, 2.5), (6.5, 2.5), (6.5, 8.5), (1.5, 8.5)]  # of columns and rows, between centers
    points = [image.TransformContinuousIndexToPhysicalPoint((*corner, 1.0)) for corner in corners]
    write_structures(folder / "structures.dcm", points)
    mask = np.zeros((10, 12, 4), np.uint8)
    mask[2:7, 3:9, 1] = 1
    if (
        np.linalg.det(direction) < 0
    ):  # DICOM has no left-handed axes: slices are sorted along the normal of their planes
        mask = mask[..., ::-1]
    return sorted(folder.iterdir()), mask


def write_structures(path: Path, points: list[tuple[float, ...]], name: str = "GTV-1") -> None:
    """An RTSTRUCT with one closed contour, of points in mm."""
    found, roi, drawn, contour = Dataset(), Dataset(), Dataset(), Dataset()
    found.Modality, found.SOPClassUID, found.SOPInstanceUID = "RTSTRUCT", RTStructureSetStorage, "1.2.3.4"
    roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = 1, name, 1
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.ContourData = [f"{value:.8g}" for point in points for value in point]
    drawn.ContourSequence = [contour]
    found.StructureSetROISequence, found.ROIContourSequence = [roi], [drawn]
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, found, enforce_file_format=True)
