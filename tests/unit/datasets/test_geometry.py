"""Files of any orientation give the same array, as ITK orients them; and the way back is exact."""

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from llm4seg.config import Config
from llm4seg.datasets.cases import RawCase
from llm4seg.datasets.folder import folder
from llm4seg.datasets.geometry import VIEWS, common_view, geometry, own_view
from llm4seg.datasets.image_io import read_image
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from llm4seg.utils.errors import InputError
from tests.tiny import PARAMS, data_section

SHAPE = (5, 6, 4)  # to the right, the front, the head
SPACING = (0.5, 0.6, 3.0)
VALUES = np.random.default_rng(0).integers(1, 1000, SHAPE, dtype=np.int16)
LESION = np.zeros(SHAPE, np.uint8)
LESION[1:3, 2:5, 1:3] = 1
CODES = ["".join(code) for axes in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*axes)]


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def oriented(values: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """Values in RAS and their affine, in another orientation."""
    change = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return apply_orientation(values, change), affine @ inv_ornt_aff(change, values.shape)


def affine_of(
    spacing: tuple[float, ...] = SPACING, turn: float = 0.0, origin: tuple[float, ...] = (-7, 11, 13)
) -> np.ndarray:
    """An affine turned by some degrees about the axis to the head."""
    angle = np.radians(turn)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned * spacing, origin
    return affine


def read(root: Path, spatial_dims: int = 3, value: int = 1) -> list[RawCase]:
    return list(folder(data_section(root, spatial_dims, classes={"lesion": [value]})).cases)


@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_gives_the_same_array(tmp_path: Path, codes: str) -> None:
    """And a mask in another orientation than its image's lies right on it."""
    save(tmp_path / "images/a.nii", *oriented(VALUES, affine_of(), codes))
    save(tmp_path / "masks/a.nii", *oriented(LESION, affine_of(), CODES[CODES.index(codes) - 1]))
    (case,) = read(tmp_path)
    assert np.array_equal(case.image[0], np.rot90(VALUES))
    assert np.array_equal(case.labels, np.rot90(LESION))
    assert case.spacing == pytest.approx((0.6, 0.5, 3.0))
    assert (case.unit, case.notices) == ("mm", ())
    slices = read(tmp_path, 2)
    assert [one.id for one in slices] == [f"a-{k:03d}" for k in range(4)]
    assert all(np.array_equal(one.image[0], np.rot90(VALUES)[..., one.position]) for one in slices)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((1, 1, 1), lambda x: np.rot90(x)),  # ties: to the head
        ((3, 3, 3.001), lambda x: np.rot90(x)),
        ((0.977, 0.977, 0.625), lambda x: np.rot90(x)),  # a CT of thin slices
        ((1, 4, 1), lambda x: np.rot90(x.transpose(0, 2, 1))),
        ((4, 1, 1), lambda x: np.rot90(x.transpose(1, 2, 0))[:, ::-1]),
    ],
)
def test_slices_are_across_the_largest_spacing(tmp_path: Path, spacing: tuple[float, ...], expected: Any) -> None:
    """Rows run to the back or the feet, columns to the right or the back."""
    for codes in ("RAS", "LPS", "ASR"):
        save(tmp_path / "images/a.nii", *oriented(VALUES, affine_of(spacing), codes))
        save(tmp_path / "masks/a.nii", *oriented(LESION, affine_of(spacing), codes))
        slices = read(tmp_path, 2)
        assert np.array_equal(np.stack([one.image[0] for one in slices], axis=-1), expected(VALUES))
        assert np.array_equal(np.stack([one.labels for one in slices], axis=-1), expected(LESION))


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("view", VIEWS)
def test_the_way_back_is_exact(tmp_path: Path, codes: str, view: str) -> None:
    values, affine = oriented(VALUES, affine_of(turn=20), codes)
    save(tmp_path / "a.nii", values, affine)
    image = read_image(tmp_path / "a.nii")
    way = geometry(image, view)
    array = way.to_array(image.values)
    assert np.array_equal(way.to_file(array)[0], values)
    index = (2, 1, 3)  # of the array: where it lies is where its value lies in the file
    (found,) = np.argwhere(values == array[0][index])
    assert (way.array_affine @ [*index, 1])[:3] == pytest.approx((affine @ [*found, 1])[:3], abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_oblique_files_are_oriented_as_itk_orients_them(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing((0.5, 0.6, 3.0))
    image.SetOrigin((1.0, -2.0, 3.0))
    image.SetDirection(np.linalg.qr(random.standard_normal((3, 3)))[0].ravel())
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    sitk.WriteImage(image, tmp_path / "images/a.nii.gz")
    sitk.WriteImage(sitk.Cast(image > 500, sitk.sitkUInt8), tmp_path / "masks/a.nii.gz")
    (case,) = read(tmp_path)
    orient = sitk.DICOMOrientImageFilter()
    orient.SetDesiredCoordinateOrientation("RAS")
    expected = sitk.GetArrayFromImage(orient.Execute(image)).transpose(2, 1, 0)
    assert np.array_equal(case.image[0], np.rot90(expected))
    assert np.array_equal(case.labels, case.image[0] > 500)


def test_a_picture_with_a_mask_of_itk(tmp_path: Path) -> None:
    """What was drawn on a picture in a program that writes NIfTI; and the other way round, with a stack of pages."""
    picture = np.random.default_rng(0).integers(1, 200, (12, 9), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(picture).save(tmp_path / "images/a.png")
    mask = sitk.Cast(sitk.ReadImage(tmp_path / "images/a.png") > 100, sitk.sitkUInt8)
    sitk.WriteImage(mask, tmp_path / "masks/a.nii.gz")
    (case,) = read(tmp_path, 2)
    assert np.array_equal(case.image[0], picture)
    assert np.array_equal(case.labels, picture > 100)
    assert (case.unit, case.notices) == ("px", ())


def test_a_volume_with_a_stack_of_pages(tmp_path: Path) -> None:
    volume = sitk.GetImageFromArray(VALUES)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    sitk.WriteImage(volume, tmp_path / "images/a.nii.gz")
    sitk.WriteImage(sitk.Cast(volume > 500, sitk.sitkUInt8), tmp_path / "masks/a.tif")
    (case,) = read(tmp_path)
    assert np.array_equal(case.labels, case.image[0] > 500)
    assert case.notices == ()
    (tmp_path / "masks/a.tif").unlink()
    (tmp_path / "images/a.nii.gz").rename(tmp_path / "b.nii.gz")
    sitk.WriteImage(volume, tmp_path / "images/a.tif")
    sitk.WriteImage(sitk.Cast(volume > 500, sitk.sitkUInt8), tmp_path / "masks/a.nii.gz")
    (case,) = read(tmp_path)
    assert np.array_equal(case.image[0], np.moveaxis(tifffile.imread(tmp_path / "images/a.tif"), 0, -1))
    assert np.array_equal(case.labels, case.image[0] > 500)


def test_a_mask_turned_against_a_picture_is_noticed(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(1, 200, (9, 9), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(picture).save(tmp_path / "images/a.png")
    save(tmp_path / "masks/a.nii", (picture > 100).astype(np.uint8).T[::-1, ::-1], np.eye(4))
    (case,) = read(tmp_path, 2)
    assert np.array_equal(case.labels, picture > 100)
    (notice,) = case.notices
    assert "images/a.png does not say how it is oriented" in notice


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (affine_of(origin=(-7, 11, 15.9)), "2.9 mm off"),
        (affine_of(origin=(-6.4, 11.89, 13)), "1.07 mm off"),
        (affine_of(turn=15), "turned by 15 degrees"),
        (affine_of((0.7, 0.6, 3.0)), "voxels: 0.7 x 0.6 x 3 mm and 0.5 x 0.6 x 3 mm"),
        (affine_of(turn=2), "turned by 2 degrees"),
    ],
)
def test_a_mask_that_lies_a_little_elsewhere_is_noticed(tmp_path: Path, other: np.ndarray, words: str) -> None:
    save(tmp_path / "images/a.nii", VALUES, affine_of())
    save(tmp_path / "masks/a.nii", LESION, other)
    (case,) = read(tmp_path)
    assert np.array_equal(case.labels, np.rot90(LESION))
    (notice,) = case.notices
    assert words in notice
    assert "masks/a.nii lies up to" in notice
    assert "off its image images/a.nii " in notice


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (affine_of(origin=(-7, 11, 16.1)), 3.1 / 12),
        (affine_of(origin=(-6.3, 11, 13)), 0.7 / 2.5),
        (affine_of(origin=(-7, 11, 53)), 40 / 12),
        (affine_of((1.0, 1.2, 3.0)), 2.5 / 6),
    ],
)
def test_a_mask_that_lies_far_off_is_refused(tmp_path: Path, other: np.ndarray, share: float) -> None:
    """It is another case's: its middle is more than a quarter of the image's width off."""
    save(tmp_path / "images/a.nii", VALUES, affine_of())
    save(tmp_path / "masks/a.nii", LESION, other)
    words = rf"masks/a\.nii: lies up to .* its middle by {share:.0%} of the image's width, as another case's would; a"
    with pytest.raises(InputError, match=words):
        read(tmp_path)


@pytest.mark.parametrize(
    ("affine", "values"),
    [(np.diag([-1.0, -1, 1, 1]), LESION[::-1, ::-1]), (np.diag([-1.0, 1, 1, 1]), LESION)],
)
def test_a_mask_that_is_turned_and_still_off_is_refused(tmp_path: Path, affine: np.ndarray, values: np.ndarray) -> None:
    """One affine is wrong, and which it is decides whether the mask is mirrored."""
    save(tmp_path / "images/a.nii", VALUES, np.eye(4))
    save(tmp_path / "masks/a.nii", values.copy(), affine)
    with pytest.raises(InputError, match=r"masks/a\.nii: oriented L.S, the image RAS; turned to it, it lies up to"):
        read(tmp_path)


@pytest.mark.parametrize("axis", range(3))
def test_a_volume_of_one_slice_is_that_slice(tmp_path: Path, axis: int) -> None:
    """However thick it is."""
    one, mask = VALUES.take([2], axis), LESION.take([2], axis)
    save(tmp_path / "images/a.nii", one, np.diag([2.0, 2.0, 2.0, 1.0]))
    save(tmp_path / "masks/a.nii", mask, np.diag([2.0, 2.0, 2.0, 1.0]))
    (case,) = read(tmp_path, 2)
    assert sorted(case.image.shape[1:]) == sorted(SHAPE[:axis] + SHAPE[axis + 1 :])
    assert case.id == "a-000"


def test_a_mask_that_rounds_its_affine_is_right(tmp_path: Path) -> None:
    save(tmp_path / "images/a.nii", VALUES, affine_of())
    save(tmp_path / "masks/a.nii", LESION, affine_of() + 1e-3 * np.eye(4)[:, [3, 0, 1, 2]])
    (case,) = read(tmp_path)
    assert case.notices == ()


@pytest.mark.parametrize("turn", [44.9, 45.1])
def test_near_45_degrees_nothing_jumps(tmp_path: Path, turn: float) -> None:
    """The image decides; the mask follows it, though its own nearest axes are others."""
    save(tmp_path / "images/a.nii", VALUES, affine_of(turn=44.9))
    save(tmp_path / "masks/a.nii", LESION, affine_of(turn=turn))
    (case,) = read(tmp_path)
    assert np.array_equal(case.labels, np.rot90(LESION))


def test_another_shape_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "images/a.nii", VALUES, affine_of())
    save(tmp_path / "masks/a.nii", LESION[:, :, :3], affine_of())
    with pytest.raises(InputError, match=r"masks/a\.nii: size \(5, 6, 3\) differs from \(5, 6, 4\) of .*images/a\.nii"):
        read(tmp_path)


def test_a_file_that_says_nothing_of_its_orientation_is_as_its_voxels_are(tmp_path: Path) -> None:
    for name, values in (("images", VALUES), ("masks", LESION)):
        file = nibabel.Nifti1Image(values, None)
        file.header.set_zooms(SPACING)
        (tmp_path / name).mkdir()
        nibabel.save(file, tmp_path / name / "a.nii")
        assert read_image(tmp_path / name / "a.nii").placed == "unknown"
    (case,) = read(tmp_path)
    assert np.array_equal(case.image[0], np.rot90(VALUES))
    assert np.array_equal(case.labels, np.rot90(LESION))
    assert case.spacing == pytest.approx((0.6, 0.5, 3.0))
    save(tmp_path / "images/a.nii", *oriented(VALUES, affine_of(), "LPS"))
    (case,) = read(tmp_path)
    assert "matched in the order of the other's voxels" in case.notices[0]
    assert np.array_equal(case.labels, np.rot90(LESION[::-1, ::-1]))


def test_an_nrrd_without_a_space_says_nothing_of_its_orientation(tmp_path: Path) -> None:
    """ITK takes its axes for left, posterior and superior; a mask in the order of its voxels fits it."""
    volume = sitk.GetImageFromArray(VALUES.transpose(2, 1, 0))
    volume.SetSpacing(SPACING)
    sitk.WriteImage(volume, tmp_path / "written.nrrd")
    content = (tmp_path / "written.nrrd").read_bytes()
    assert read_image(tmp_path / "written.nrrd").placed == "file"
    for line in (b"space: left-posterior-superior\n", b"space origin: (0,0,0)\n"):
        content = content.replace(line, b"")
    start = content.index(b"space directions")
    content = content[:start] + b"spacings: 0.5 0.6 3" + content[content.index(b"\n", start) :]
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.nrrd").write_bytes(content)
    assert read_image(tmp_path / "images/a.nrrd").placed == "unknown"
    save(tmp_path / "masks/a.nii", LESION, affine_of())
    (case,) = read(tmp_path)
    assert np.array_equal(case.image[0], np.rot90(VALUES[::-1, ::-1]))
    assert np.array_equal(case.labels, np.rot90(LESION[::-1, ::-1]))
    assert case.spacing == pytest.approx((0.6, 0.5, 3.0))
    assert "images/a.nrrd does not say how it is oriented" in case.notices[0]


@pytest.mark.parametrize(
    ("spacing", "spatial_dims", "axis"),
    [((1, 1, 1), 3, 1), ((4, 1, 1), 3, 1), ((1, 1, 1), 2, 1), ((1, 4, 1), 2, 1), ((4, 1, 1), 2, None)],
)
def test_where_left_and_right_are(tmp_path: Path, spacing: tuple[float, ...], spatial_dims: int, axis: int) -> None:
    """Along the columns, but for sagittal slices, where they are across."""
    save(tmp_path / "images/a.nii", *oriented(VALUES, affine_of(spacing, turn=10), "ASR"))
    save(tmp_path / "masks/a.nii", *oriented(LESION, affine_of(spacing, turn=10), "LPS"))
    section = Config.load(PARAMS).override({"data.spatial_dims": spatial_dims, "data.size": [16] * spatial_dims}).data
    dataset = folder(data_section(tmp_path, spatial_dims, classes={"lesion": [1]}))
    prepared = write_prepared(dataset, section, tmp_path / "prepared")
    assert {prepared.left_right_axis(case) for case in prepared.cases} == {axis}


def test_slices_in_different_planes_are_warned_of(tmp_path: Path) -> None:
    for name, spacing in (("a", (1, 1, 4)), ("b", (1, 4, 1)), ("c", (1, 1, 4))):
        save(tmp_path / f"images/{name}.nii", VALUES, affine_of(spacing))
        save(tmp_path / f"masks/{name}.nii", LESION, affine_of(spacing))
    section = data_section(tmp_path, classes={"lesion": [1]}, size=[16, 16])
    notices = write_prepared(open_dataset(section, tmp_path), section, tmp_path / "prepared").notices
    assert notices[0] == (
        "slices are axial for some volumes (images/a.nii) and coronal for some volumes (images/b.nii): each volume's "
        "largest spacing decides, see data/raw/README.md"
    )


def test_the_way_back_of_sheared_and_4_d_files(tmp_path: Path) -> None:
    affine = affine_of(turn=10) @ np.array([[1, 0.2, 0, 0], [0, 1, 0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    values = np.stack([VALUES, VALUES + 1], axis=-1)
    save(tmp_path / "a.nii", values, affine)
    image = read_image(tmp_path / "a.nii")
    for view in VIEWS:
        way = geometry(image, view)
        assert np.array_equal(way.to_file(way.to_array(image.values)), np.moveaxis(values, -1, 0))
    assert geometry(image, "axial").spacing == pytest.approx(np.linalg.norm(affine[:3, [1, 0, 2]], axis=0))


@pytest.mark.parametrize("codes", CODES)
def test_an_arrays_view_is_known_from_its_geometry(tmp_path: Path, codes: str) -> None:
    save(tmp_path / "a.nii", *oriented(VALUES, affine_of(turn=30), codes))
    image = read_image(tmp_path / "a.nii")
    found = {view: geometry(image, view).view for view in VIEWS}
    assert found == {view: view for view in VIEWS}
    assert own_view(image) == "axial"


def test_the_view_of_most_volumes_is_written_and_pictures_have_none(tmp_path: Path) -> None:
    for number, spacing in enumerate([(3, 1, 1), (1, 3, 1), (1, 1, 1), (1, 3, 1)]):
        save(tmp_path / "images" / f"{number}.nii", VALUES, np.diag([*spacing, 1.0]))
        save(tmp_path / "masks" / f"{number}.nii", LESION, np.diag([*spacing, 1.0]))
    section = data_section(tmp_path, 2, classes={"lesion": [1]})
    data = write_prepared(folder(section), section, tmp_path / "prepared")
    assert (data.view, data.preprocessing.left_right_axis, data.preprocessing.unit) == ("coronal", 1, "mm")
    assert own_view(read_image(tmp_path / "images" / "2.nii")) is None
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    assert common_view([geometry(read_image(tmp_path / "a.png"), "axial")]) is None
    assert common_view([]) is None
