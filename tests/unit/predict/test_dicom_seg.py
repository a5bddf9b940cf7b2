"""DICOM series in, DICOM-SEG out, read by highdicom and pydicom: segments, places, references, the patient."""

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

import llm4seg
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.predict.cases import find_cases
from llm4seg.predict.dicom_seg import write_dicom_seg
from llm4seg.predict.dicom_series import read_series
from tests.dicom import DIRECTIONS, NAME, itk_image, save_series

TO_RAS = np.diag([-1.0, -1, 1, 1])


def segmented(folder: Path, target: Path, values: np.ndarray, classes: dict[str, tuple[int, ...]]) -> np.ndarray:
    """Write labels `values` (slices, rows, columns) of a series; the affine of its volume, in LPS."""
    (case,), _ = find_cases(folder, 1, target.parent)
    image = read_series(case.files, case.source)
    write_dicom_seg(target, case.files, values.T, image.affine, classes, "0123abcd")
    return TO_RAS @ image.affine


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_each_voxel_is_where_it_was(tmp_path: Path, direction: str) -> None:
    save_series(tmp_path / "series", itk_image(DIRECTIONS[direction]))
    labels = np.random.default_rng(1).integers(0, 3, (4, 6, 5)).astype(np.uint8)
    affine = segmented(tmp_path / "series", tmp_path / "seg.dcm", labels, {"dark": (1,), "bright": (2,)})
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [seg.get_segment_description(number).segment_label for number in (1, 2)] == ["dark", "bright"]
    volume = seg.get_volume(combine_segments=True)
    to_index = np.linalg.inv(volume.affine) @ affine
    for k, j, i in np.ndindex(labels.shape):
        place = to_index @ [i, j, k, 1]
        index = tuple(np.rint(place[:3]).astype(int))
        np.testing.assert_allclose(place[:3], index, atol=1e-3)
        assert volume.array[index] == labels[k, j, i]


def test_it_refers_to_the_slices_and_names_the_patient(tmp_path: Path) -> None:
    save_series(tmp_path / "series", itk_image(np.eye(3)))
    for path in (tmp_path / "series").iterdir():
        content = pydicom.dcmread(path)
        content.FrameOfReferenceUID, content.SpacingBetweenSlices = "1.2.3.4", 1  # of 3 mm
        content.save_as(path)
    labels = np.zeros((4, 6, 5), np.uint8)
    labels[1, 2, 3] = labels[3, 4, 0] = 1
    segmented(tmp_path / "series", tmp_path / "seg.dcm", labels, {"lesion": (1,)})
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    slices = {path: pydicom.dcmread(path) for path in sorted((tmp_path / "series").iterdir())}
    first = next(iter(slices.values()))
    assert (str(written.PatientName), written.Modality, written.SegmentationType) == (NAME, "SEG", "BINARY")
    assert written.StudyInstanceUID == first.StudyInstanceUID != written.SeriesInstanceUID
    assert written.FrameOfReferenceUID == "1.2.3.4"
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID
    assert len(written.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 4
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.get_volume(combine_segments=True).spacing == (3.0, 0.75, 0.5)
    for content in slices.values():
        height = round((float(content.ImagePositionPatient[2]) - 30) / 3)
        frame = seg.get_pixels_by_source_instance([content.SOPInstanceUID], combine_segments=True)[0]
        assert np.array_equal(frame, labels[height])


def test_regions_overlap_and_an_empty_mask_has_frames(tmp_path: Path) -> None:
    save_series(tmp_path / "series", itk_image(np.eye(3)))
    labels = np.random.default_rng(1).integers(0, 3, (4, 6, 5)).astype(np.uint8)
    scheme = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2))
    regions = {name: scheme.covered(place) for place, name in enumerate(scheme.classes)}
    affine = segmented(tmp_path / "series", tmp_path / "seg.dcm", labels, regions)
    volume = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume()
    np.testing.assert_allclose(np.abs(np.linalg.det(volume.affine[:3, :3])), np.abs(np.linalg.det(affine[:3, :3])))
    counts = volume.array.sum(axis=(0, 1, 2)).tolist()
    assert counts == [int((labels > 0).sum()), int((labels == 2).sum())]
    segmented(tmp_path / "series", tmp_path / "empty.dcm", labels * 0, {"lesion": (1,)})
    assert not highdicom.seg.segread(tmp_path / "empty.dcm").pixel_array.any()


def test_a_series_without_names_and_one_of_several_frames(tmp_path: Path) -> None:
    save_series(tmp_path / "series", itk_image(np.eye(3)))
    for path in (tmp_path / "series").iterdir():
        content = pydicom.dcmread(path)
        for keyword in ("PatientName", "PatientID", "StudyDate", "AccessionNumber", "StudyID", "PatientSex"):
            content.pop(keyword, None)
        content.save_as(path)
    segmented(tmp_path / "series", tmp_path / "seg.dcm", np.ones((4, 6, 5), np.uint8), {"lesion": (1,)})
    assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientName) == ""
    content.NumberOfFrames = 2
    content.save_as(path)
    with pytest.raises(llm4seg.InputError, match="has several frames, allowed for DICOM-SEG: a file a slice"):
        write_dicom_seg(tmp_path / "m.dcm", [path], np.ones((5, 6, 2), np.uint8), np.eye(4), {"lesion": (1,)}, "0")
    del content.NumberOfFrames, content.StudyInstanceUID
    content.save_as(path)
    with pytest.raises(llm4seg.InputError, match=r"cannot be written as DICOM-SEG: .*StudyInstanceUID"):
        write_dicom_seg(tmp_path / "m.dcm", [path], np.ones((5, 6, 1), np.uint8), np.eye(4), {"lesion": (1,)}, "0")
