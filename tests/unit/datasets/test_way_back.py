"""Reader by reader, format by format: the arrays lead back to each file's own voxels, at the file's own places."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from llm4seg.datasets.cases import RawCase
from llm4seg.datasets.lung import read_patient
from llm4seg.datasets.registry import open_dataset
from tests import layouts
from tests.dicom import DIRECTIONS, ct_patient, itk_image, save_series
from tests.single_volumes import NIFTI, PLACES, READABLE
from tests.tiny import data_section

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(-1000, 1000, (4, 6, 5), dtype=np.int16)  # slices, rows, columns
MASK = RANDOM.integers(0, 2, IMAGE.shape, dtype=np.uint8)
SHEAR = np.array([[1, 0.2, 0, 0], [0, 1, 0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
TO_RAS = np.diag([-1.0, -1, 1, 1])


def own(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A file's voxels (C, I, J, K) and affine in RAS, as the format's own library reads them."""
    if path.name.endswith(NIFTI):
        file: Any = nibabel.load(path)
        values = np.asarray(file.dataobj)
        return np.moveaxis(values if values.ndim == 4 else values[..., None], -1, 0), file.affine
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)) if path.is_dir() else path)
    affine = np.eye(4)
    for axis in range(3):  # where the next voxel along each axis lies
        index = [int(axis == one) for one in range(3)]
        affine[:3, axis] = np.subtract(image.TransformIndexToPhysicalPoint(index), image.GetOrigin())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)[None], TO_RAS @ affine


def save(path: Path, values: np.ndarray, direction: np.ndarray, shear: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.suffix:
        save_series(path, itk_image(direction, values.astype(np.int16)))
        return
    sitk.WriteImage(itk_image(direction, values), path)
    if shear:
        file: Any = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(file.dataobj).copy(), file.affine @ SHEAR), path)


def check(case: RawCase, image: Path, mask: Path | None) -> None:
    """Back in the file's order the arrays are the files' own, and the affine is the image's."""
    assert case.geometry is not None
    values, affine = own(image)
    assert np.array_equal(case.geometry.to_file(case.image), values)
    assert np.allclose(case.geometry.affine, affine, atol=1e-4)
    assert case.spacing == pytest.approx(np.linalg.norm(affine[:3, list(case.geometry.axes)], axis=0), abs=1e-4)
    if mask is not None:
        assert np.array_equal(case.geometry.to_file(case.labels[None]), own(mask)[0])
    to_back, to_right, to_head = np.diag(case.geometry.array_affine[[1, 0, 2], :3]) * (-1, 1, 1)
    assert min(to_back, to_right, to_head) > 0


def read(root: Path, dataset: str, spatial_dims: int = 3) -> list[RawCase]:
    classes = {"lesion": [1]} if dataset == "folder" else None
    return list(open_dataset(data_section(root, spatial_dims, dataset, classes=classes), root.parent / "cache").cases)


@pytest.mark.parametrize(
    ("dataset", "ending", "name"),
    [
        (dataset, ending, name)
        for dataset, endings in READABLE.items()
        for ending in endings
        for name in (*DIRECTIONS, *(("sheared",) if ending in NIFTI else ()))
    ],
)
def test_the_way_there_and_back(tmp_path: Path, dataset: str, ending: str, name: str) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    image, mask = PLACES[dataset](root, ending)
    direction = DIRECTIONS.get(name, DIRECTIONS["LAS"])
    save(image, IMAGE, direction, name == "sheared")
    save(mask, MASK, direction, name == "sheared")
    (case,) = read(root, dataset)
    assert (case.unit, case.notices) == ("mm", ())
    check(case, image, mask)


@pytest.mark.parametrize("dataset", ["folder", "decathlon"])
@pytest.mark.parametrize("name", ["LAS", "sagittal", "oblique"])
def test_channels_along_a_fourth_axis(tmp_path: Path, dataset: str, name: str) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    image, mask = PLACES[dataset](root, ".nii.gz")
    save(image, IMAGE, DIRECTIONS[name])
    save(mask, MASK, DIRECTIONS[name])
    file: Any = nibabel.load(image)
    values = np.asanyarray(file.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.stack([values, -values], axis=-1), file.affine), image)
    if dataset == "decathlon":
        about = json.loads((root / "dataset.json").read_text())
        (root / "dataset.json").write_text(json.dumps({**about, "modality": {"0": "a", "1": "b"}}))
    (case,) = read(root, dataset)
    check(case, image, mask)


@pytest.mark.parametrize("name", ["RAS", "LAS", "coronal", "oblique"])
@pytest.mark.parametrize("dataset", PLACES)
def test_slices_stack_up_to_their_file(tmp_path: Path, dataset: str, name: str) -> None:
    """Across the largest spacing, whichever plane that is."""
    root = tmp_path / "raw"
    root.mkdir()
    image, mask = PLACES[dataset](root, ".nii.gz")
    save(image, IMAGE, DIRECTIONS[name])
    save(mask, MASK, DIRECTIONS[name])
    slices = read(root, dataset, spatial_dims=2)
    way = slices[0].geometry
    assert way is not None
    assert np.array_equal(way.to_file(np.stack([one.image for one in slices], axis=-1)), own(image)[0])
    assert np.array_equal(way.to_file(np.stack([one.labels for one in slices], axis=-1)[None]), own(mask)[0])
    assert np.allclose(way.affine, own(image)[1], atol=1e-4)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_lung_ct(tmp_path: Path, name: str) -> None:
    """CT in any orientation, with a contour drawn in its slices' planes."""
    files, mask = ct_patient(tmp_path / "a", DIRECTIONS[name])
    case = read_patient("a", "source", files)
    (tmp_path / "a" / "structures.dcm").unlink()
    check(case, tmp_path / "a", None)
    assert case.geometry is not None
    assert np.array_equal(case.geometry.to_file(case.labels[None])[0], mask)


@pytest.mark.parametrize("dataset", layouts.WRITERS)
def test_pictures_stay_as_they_are(tmp_path: Path, dataset: str) -> None:
    layouts.WRITERS[dataset](tmp_path)
    for case in open_dataset(data_section(tmp_path, dataset=dataset), tmp_path / "cache").cases:
        assert case.geometry is not None
        assert np.array_equal(case.geometry.to_file(case.image[..., None])[..., 0], case.image)
        assert case.geometry.shape == (*case.labels.shape, 1)
