"""Dataset `lung-ct`, downloaded: its volumes and contours lie where SimpleITK and the contours' millimeters say."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from llm4seg.config import Config
from llm4seg.datasets.lung import FOLDER, PACKAGE, lung_ct
from tests.tiny import PARAMS


def drawn(contour: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where points (x, y) are inside of a contour (points, 2): a ray from them crosses it an odd number of times."""
    inside = np.zeros(x.shape, dtype=bool)
    for (x1, y1), (x2, y2) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


@pytest.mark.parametrize("patient", ["pat_2", "pat_4"])
def test_lung_ct_lies_as_itk_reads_it(patient: str) -> None:
    """Of a patient: the volume in every voxel, and the tumour as its contours are drawn in mm on the CT's slices."""
    cache = Config.load(PARAMS).paths.cache
    case = next(case for case in lung_ct(3, cache).cases if case.id == patient)
    folder = cache / PACKAGE / FOLDER / patient
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    assert case.geometry is not None
    assert np.array_equal(case.geometry.to_file(case.image)[0], sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    to_right = case.geometry.array_affine[:3, 1]
    assert np.allclose(to_right, (image.GetSpacing()[0], 0, 0))  # columns run to the right

    (structures,) = [one for file in folder.iterdir() if (one := pydicom.dcmread(file)).Modality == "RTSTRUCT"]
    (number,) = [roi.ROINumber for roi in structures.StructureSetROISequence if roi.ROIName == "GTV-1"]
    (roi,) = [roi for roi in structures.ROIContourSequence if roi.ReferencedROINumber == number]
    expected = np.zeros(sitk.GetArrayViewFromImage(image).shape, dtype=bool)
    x0, y0, z0 = image.GetOrigin()
    x, y, z = image.GetSpacing()
    rows, columns = np.indices(expected.shape[1:])
    for contour in roi.ContourSequence:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        expected[round((points[0, 2] - z0) / z)] ^= drawn(points[:, :2], x0 + x * columns, y0 + y * rows)
    labels = case.geometry.to_file(case.labels[None])[0].transpose(2, 1, 0)
    assert expected.sum() > 1000
    assert (labels != expected).sum() < 0.002 * expected.sum()  # centers on a contour's line, by rounding
