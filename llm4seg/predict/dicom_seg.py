"""Masks of DICOM series as DICOM Segmentation objects (DICOM PS3.3 A.51), by highdicom."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.datasets.itk_io import TO_RAS
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import require
from llm4seg.utils.files import replacing

# The standard wants these of every object, and allows that they are empty, as they are where a series is without names.
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName"),
)
NAME = "llm4seg"


def write_dicom_seg(
    target: Path,
    files: Sequence[Path],
    labels: np.ndarray,
    affine: np.ndarray,
    classes: Mapping[str, tuple[int, ...]],
    model: str,
) -> None:
    """Write labels uint8 (columns, rows, slices) as a DICOM-SEG, atomically: a binary segment a class.

    `files`: the series, whose patient and study it names and whose slices it refers to; `affine`: of the labels, from
    indices to right, anterior, superior in mm; `classes`: the labels of each; `model`: an identifier of the model.
    Raises InputError for files of several frames, and for those that lack what the standard wants.
    """
    require("highdicom", "a mask as DICOM-SEG")
    import highdicom
    from pydicom.sr.codedict import codes

    slices = [_header(path, distance=float(np.linalg.norm(affine[:3, 2]))) for path in files]
    segments = [_segment(highdicom, codes, place, name) for place, name in enumerate(classes, start=1)]
    frames_NHW = np.stack([_frame(labels, np.linalg.inv(affine), one) for one in slices])
    pixels = frames_NHW
    if [*classes.values()] != [(place,) for place in range(1, len(classes) + 1)]:  # regions, which may overlap
        pixels = np.stack([np.isin(frames_NHW, [*values]) for values in classes.values()], axis=-1).astype(np.uint8)
    try:
        seg = highdicom.seg.Segmentation(
            source_images=slices,
            pixel_array=pixels,
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=int(slices[0].get("SeriesNumber") or 0) % 1_000_000 + 9000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=NAME,
            manufacturer_model_name=NAME,
            software_versions=version(NAME),
            device_serial_number=model,
            series_description=f"segmentation by {NAME}",
            omit_empty_frames=bool(pixels.any()),
        )
    except (AttributeError, TypeError, ValueError) as error:  # of series that lack what the standard wants of them
        reason = " ".join(str(error).split())
        raise InputError(
            f"{files[0].parent}: cannot be written as DICOM-SEG: {reason}; choose another --format"
        ) from None
    with replacing(target) as partial:
        seg.save_as(partial, enforce_file_format=True)


def _header(path: Path, distance: float) -> Any:
    """A file without its pixels, with what highdicom needs; `distance` of slices in mm, which files may have wrong."""
    import pydicom

    content = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    if int(content.get("NumberOfFrames") or 1) > 1:
        raise InputError(f"{path}: has several frames, allowed for DICOM-SEG: a file a slice; choose another --format")
    if "ImagePositionPatient" in content and "FrameOfReferenceUID" not in content:  # which some programs leave out
        content.FrameOfReferenceUID = pydicom.uid.generate_uid(entropy_srcs=[str(content.get("SeriesInstanceUID"))])
    if not content.get("SliceThickness"):
        content.SliceThickness = distance
    content.SpacingBetweenSlices = distance
    for keyword in MAY_BE_EMPTY:
        if keyword not in content:
            setattr(content, keyword, "")
    return content


def _frame(labels: np.ndarray, to_index: np.ndarray, header: Any) -> np.ndarray:
    """The labels (rows, columns) of the slice that lies where a file says, whatever the order of the files."""
    if labels.shape[2] == 1 or "ImagePositionPatient" not in header:
        return labels[..., 0].T
    index = to_index @ TO_RAS @ [*map(float, header.ImagePositionPatient), 1.0]
    return labels[..., int(np.clip(np.rint(index[2]), 0, labels.shape[2] - 1))].T


def _segment(highdicom: Any, codes: Any, number: int, name: str) -> Any:
    """A class: what kind of tissue it is, no parameter says, so that it is `Tissue` and has its name as a label."""
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=NAME, version=version(NAME), family=codes.DCM.ArtificialIntelligence
    )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )
