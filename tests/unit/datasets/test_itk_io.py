"""NRRD, MetaImage and DICOM: oriented as ITK orients them, exact on the way back, refused where slices do not fit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from llm4seg.datasets.cases import RawCase
from llm4seg.datasets.folder import folder
from llm4seg.datasets.geometry import geometry
from llm4seg.datasets.image_io import read_image
from llm4seg.utils.errors import InputError
from tests.dicom import DIRECTIONS, NAME, VALUES, itk_image, save_series
from tests.tiny import data_section

FORMATS = ("nii.gz", "nrrd", "nhdr", "mha", "mhd", "dicom")


def save(where: Path, form: str, image: sitk.Image) -> Path:
    if form == "dicom":
        save_series(where / "a", image)
        return where / "a"
    where.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, where / f"a.{form}")
    return where / f"a.{form}"


def read(root: Path, spatial_dims: int = 3) -> list[RawCase]:
    return list(folder(data_section(root, spatial_dims, classes={"lesion": [1]})).cases)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_oriented_as_itk_does_and_back(tmp_path: Path, form: str, name: str) -> None:
    """With a mask in another format; whatever the format, the array is the same."""
    image = itk_image(DIRECTIONS[name])
    path = save(tmp_path / "images", form, image)
    save(tmp_path / "masks", FORMATS[FORMATS.index(form) - 1], sitk.Cast(image > 500, sitk.sitkInt16))
    (case,) = read(tmp_path)
    orient = sitk.DICOMOrientImageFilter()
    orient.SetDesiredCoordinateOrientation("RAS")
    expected = orient.Execute(image)
    assert np.array_equal(case.image[0], np.rot90(sitk.GetArrayFromImage(expected).transpose(2, 1, 0)))
    assert np.array_equal(case.labels, case.image[0] > 500)
    assert case.spacing == pytest.approx([expected.GetSpacing()[k] for k in (1, 0, 2)], abs=1e-4)
    assert (case.unit, case.notices) == ("mm", ())
    read_again = read_image(path)
    assert case.geometry is not None
    assert np.array_equal(case.geometry.to_file(case.image), read_again.values)
    index = (1, 2, 3)
    there = case.geometry.array_affine @ [*index, 1]
    at = image.TransformPhysicalPointToIndex([-there[0], -there[1], there[2]])
    assert image[at] == case.image[0][index]


@pytest.mark.parametrize("form", ["nrrd", "mha"])
def test_components_and_a_fourth_axis_are_channels(tmp_path: Path, form: str) -> None:
    colors = np.random.default_rng(0).integers(0, 255, (*VALUES.shape, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colors, isVector=True), tmp_path / f"a.{form}")
    assert np.array_equal(read_image(tmp_path / f"a.{form}").values, colors.transpose(3, 2, 1, 0))
    times = np.stack([VALUES, VALUES + 1])
    sitk.WriteImage(sitk.GetImageFromArray(times, isVector=False), tmp_path / f"b.{form}")
    assert np.array_equal(read_image(tmp_path / f"b.{form}").values, times.transpose(0, 3, 2, 1))


@pytest.mark.parametrize("form", ["nrrd", "mha", "nii.gz"])
def test_a_flat_image_lies_as_its_picture(tmp_path: Path, form: str) -> None:
    """A mask that ITK wrote in two dimensions fits the picture that it was drawn on."""
    picture = np.random.default_rng(0).integers(0, 255, (9, 7), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    flat = sitk.GetImageFromArray(picture)
    sitk.WriteImage(flat, tmp_path / "images/a.bmp")
    sitk.WriteImage(flat > 100, tmp_path / f"masks/a.{form}")
    assert read_image(tmp_path / f"masks/a.{form}").flat
    (case,) = read(tmp_path, 2)
    assert np.array_equal(case.image[0], picture)
    assert np.array_equal(case.labels, picture > 100)


def test_the_largest_of_several_series_is_read(tmp_path: Path) -> None:
    image = itk_image(DIRECTIONS["LPS"])
    save_series(tmp_path / "images/a", image)
    save_series(tmp_path / "images/a", image[:, :, :1], series="2")
    save(tmp_path / "masks", "nrrd", sitk.Cast(image > 500, sitk.sitkUInt8))
    (case,) = read(tmp_path)
    assert case.labels.shape[2] == 4
    assert case.notices == ("images/a holds 2 DICOM series, of 4, 1 slices: the largest is read",)
    assert NAME.encode() not in repr(case).encode()


def test_of_series_of_equal_size_none_is_chosen(tmp_path: Path) -> None:
    image = itk_image(DIRECTIONS["LPS"])
    for series in ("1", "2"):
        save_series(tmp_path / "a", image, series)
    save_series(tmp_path / "a", image[:, :, :1], series="3")
    with pytest.raises(InputError, match=r"a: .*holds 2 DICOM series of 4 slices, allowed: one series a folder$"):
        read_image(tmp_path / "a")


def at_heights(folder: Path, heights: Sequence[float]) -> Path:
    """A series with a slice at each height, as its header says it in text."""
    values = np.random.default_rng(0).integers(0, 9, (len(heights), 6, 5), dtype=np.int16)
    save_series(folder, itk_image(DIRECTIONS["LPS"], values))
    for path, height in zip(sorted(folder.iterdir()), heights, strict=True):
        content = pydicom.dcmread(path)
        content.ImagePositionPatient = [10, -20, f"{height:g}"]
        content.save_as(path)
    return folder


@pytest.mark.parametrize(("spacing", "decimals"), [(0.625, 2), (0.625, 1), (1.25, 1), (3.0, 3)])
def test_places_may_be_rounded_but_none_may_be_missing(tmp_path: Path, spacing: float, decimals: int) -> None:
    heights = [round(spacing * k, decimals) for k in range(30)]
    image = read_image(at_heights(tmp_path / "a", heights))
    assert np.linalg.norm(image.affine[:3, 2]) == pytest.approx(heights[-1] / 29)  # of all of them, not of two
    for count in (4, 5, 12, 30):
        for missing in {1, count // 2, count - 2}:
            folder = at_heights(tmp_path / f"{count}-{missing}", heights[:missing] + heights[missing + 1 : count])
            with pytest.raises(InputError, match=r"slices are .* mm apart, but .* is one missing\?$"):
                read_image(folder)


def test_distances_that_change_within_a_series_are_refused(tmp_path: Path) -> None:
    heights = [*range(11), *(10 + 1.15 * k for k in range(1, 10))]
    with pytest.raises(InputError, match=r"slices are 1 mm apart, but 1\.15 mm between"):
        read_image(at_heights(tmp_path / "a", heights))


def test_slices_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    image = itk_image(DIRECTIONS["LPS"])
    save_series(tmp_path / "gap", image)
    (tmp_path / "gap/1-02.dcm").unlink()
    with pytest.raises(InputError, match=r"gap: .*slices are .* mm apart, but .* between .*: is one missing"):
        read_image(tmp_path / "gap")
    save_series(tmp_path / "gap2", itk_image(DIRECTIONS["LPS"], np.concatenate([VALUES, VALUES])))
    (tmp_path / "gap2/1-02.dcm").unlink()
    with pytest.raises(InputError, match=r"gap2: .*slices are 3 mm apart, but 6 mm between 33 and 39 mm"):
        read_image(tmp_path / "gap2")
    save_series(tmp_path / "twice", image)
    content = (tmp_path / "twice/1-02.dcm").read_bytes()
    (tmp_path / "twice/copy.dcm").write_bytes(content)
    with pytest.raises(InputError, match=r"twice: .*two slices lie at 36 mm"):
        read_image(tmp_path / "twice")
    save_series(tmp_path / "turned", image[:, :, :3])
    save_series(tmp_path / "other", itk_image(DIRECTIONS["oblique"]))
    (tmp_path / "turned/9.dcm").write_bytes((tmp_path / "other/1-03.dcm").read_bytes())
    with pytest.raises(InputError, match=r"turned: .*(turned against each other|slices are .* apart)"):
        read_image(tmp_path / "turned")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: .*a folder without DICOM files"):
        read_image(tmp_path / "empty")


def test_dicom_with_0_as_white_is_inverted(tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(1, 4, 6)
    save_series(tmp_path / "a", sitk.GetImageFromArray(stored))
    (file,) = (tmp_path / "a").iterdir()
    content = pydicom.dcmread(file)
    content.PhotometricInterpretation = "MONOCHROME1"
    content.save_as(file)
    assert np.array_equal(read_image(tmp_path / "a").values[0].transpose(2, 1, 0), 255 - stored)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.dcm", "a.bmp"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(InputError, match=rf"{name}: cannot be read as an image"):
        read_image(tmp_path / name)


def test_the_way_back_of_a_view_of_dicom(tmp_path: Path) -> None:
    save_series(tmp_path / "a", itk_image(DIRECTIONS["coronal"]))
    image = read_image(tmp_path / "a")
    for view in ("axial", "coronal", "sagittal"):
        way = geometry(image, view)
        assert np.array_equal(way.to_file(way.to_array(image.values)), image.values)
