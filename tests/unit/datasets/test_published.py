"""The brain's classes by region name, and contours to masks, on small files made here."""

import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from llm4seg.datasets.brain import CLASSES, class_of_region
from llm4seg.datasets.cases import RawCase
from llm4seg.datasets.lung import read_patient
from llm4seg.utils.errors import InputError

HEIGHTS = (30.0, 24.0, 27.0)  # slices are not stored in order


def test_regions_are_looked_up_by_name(tmp_path: Path) -> None:
    path = tmp_path / "regions.csv"
    rows = ["9,cuneus,L,cortex", "2,caudate,R,subcortex/brainstem", "5,amygdala,L,subcortex/brainstem"]
    path.write_text("\n".join(["id,label,hemisphere,structure", *rows, "4,brainstem,B,subcortex/brainstem"]))
    table = class_of_region(path)
    assert [("background", *CLASSES)[label] for label in table[[0, 9, 2, 5, 4]]] == ["background", *CLASSES]
    path.write_text("id,label,hemisphere,structure\n1,cerebellum,L,subcortex/brainstem")
    with pytest.raises(InputError, match=r"regions\.csv: no class has the region 'cerebellum'"):
        class_of_region(path)


def save_dicom(path: Path, storage: str, content: Dataset) -> None:
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content.SOPClassUID, content.SOPInstanceUID = storage, pydicom.uid.generate_uid()
    content.PatientName, content.PatientID = "Doe^Jane", "secret"
    content.StudyDate = datetime.date(2001, 2, 3)
    content.save_as(path, enforce_file_format=True)


def ct_slice(height: float) -> Dataset:
    """10 x 8 pixels of 2 x 0.5 mm, brighter the higher."""
    ct = Dataset()
    ct.Modality, ct.Rows, ct.Columns, ct.PixelSpacing = "CT", 10, 8, [2, 0.5]
    ct.ImagePositionPatient, ct.ImageOrientationPatient = [100, -50, height], [1, 0, 0, 0, 1, 0]
    ct.RescaleSlope, ct.RescaleIntercept = 2, -1000
    ct.SamplesPerPixel, ct.PhotometricInterpretation = 1, "MONOCHROME2"
    ct.BitsAllocated, ct.BitsStored, ct.HighBit, ct.PixelRepresentation = 16, 16, 15, 0
    ct.PixelData = np.full((10, 8), int(height), dtype=np.uint16).tobytes()
    return ct


def box(height: float, rows: tuple[float, float], columns: tuple[float, float]) -> list[float]:
    """A contour around whole pixels, rows[0] to rows[1] and columns[0] to columns[1] inclusive."""
    (top, bottom), (left, right) = rows, columns
    corners = [
        (top - 0.5, left - 0.5),
        (top - 0.5, right + 0.5),
        (bottom + 0.5, right + 0.5),
        (bottom + 0.5, left - 0.5),
    ]
    return [value for row, column in corners for value in (100 + 0.5 * column, -50 + 2 * row, height)]


def structures(contours: list[list[float]], name: str = "GTV-1") -> Dataset:
    found = Dataset()
    found.Modality = "RTSTRUCT"
    found.StructureSetROISequence, found.ROIContourSequence = [], []
    for number, roi_name, several in ((3, "Heart", [box(24, (0, 9), (0, 7))]), (7, name, contours)):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = number, roi_name, number
        drawn.ContourSequence = []
        for points in several:
            contour = Dataset()
            contour.ContourGeometricType, contour.ContourData = "CLOSED_PLANAR", points
            drawn.ContourSequence.append(contour)
        found.StructureSetROISequence.append(roi)
        found.ROIContourSequence.append(drawn)
    return found


def patient(folder: Path, contours: list[list[float]], name: str = "GTV-1") -> RawCase:
    for number, height in enumerate(HEIGHTS):
        save_dicom(folder / f"{number}.dcm", CTImageStorage, ct_slice(height))
    save_dicom(folder / "rs.dcm", RTStructureSetStorage, structures(contours, name))
    return read_patient("pat_1", "somewhere", sorted(folder.glob("*.dcm")))


def test_slices_are_in_order_and_in_hounsfield_units(tmp_path: Path) -> None:
    case = patient(tmp_path, [box(27, (2, 5), (1, 3))])
    assert case.image.dtype == np.int16
    assert case.image[0, 0, 0].tolist() == [2 * 24 - 1000, 2 * 27 - 1000, 2 * 30 - 1000]
    assert case.spacing == (2.0, 0.5, 3.0)
    expected = np.zeros((10, 8, 3), dtype=np.uint8)
    expected[2:6, 1:4, 1] = 1  # the heart's contour is not the tumour's
    assert np.array_equal(case.labels, expected)
    assert case.group == case.id == "pat_1"


def test_contours_of_a_slice_make_holes_and_pieces(tmp_path: Path) -> None:
    contours = [box(30, (0, 6), (0, 4)), box(30, (2, 4), (1, 3)), box(30, (8, 9), (6, 7)), box(24.4, (0, 0), (0, 0))]
    labels = patient(tmp_path, contours).labels
    expected = np.zeros((10, 8, 3), dtype=np.uint8)
    expected[0:7, 0:5, 2] = 1
    expected[2:5, 1:4, 2] = 0
    expected[8:10, 6:8, 2] = 1
    expected[0, 0, 0] = 1  # not quite in the slice's plane, but nearest to it
    assert np.array_equal(labels, expected)


def test_missing_and_misplaced_contours_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"somewhere: its RTSTRUCT has no contours named 'GTV-1'"):
        patient(tmp_path, [box(27, (2, 5), (1, 3))], name="Lung")
    with pytest.raises(InputError, match="somewhere: a contour at 40 mm; the slices go from 24 to 30 mm"):
        patient(tmp_path, [box(40, (2, 5), (1, 3))])
