"""A user's own folder: how names are matched, what mask values mean, and every mistake one can make there."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.folder import folder
from llm4seg.utils.errors import InputError
from tests.tiny import data_section


def save(path: Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".nii" in path.name:
        nibabel.save(nibabel.Nifti1Image(array, options.get("affine", np.eye(4))), path)
    else:
        Image.fromarray(array).save(path, **options)


def picture(seed: int = 0, shape: tuple[int, ...] = (8, 10)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, shape, dtype=np.uint8)


def square(value: int, top: int = 2, left: int = 3, shape: tuple[int, ...] = (8, 10)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[top : top + 3, left : left + 3] = value
    return mask


def opened(root: Path, spatial_dims: int = 2, group: str | None = None, **classes: tuple[int | str, ...]) -> Dataset:
    return folder(data_section(root, spatial_dims, **{"folder.group": group, "classes": classes or None}))


def read(root: Path, *options: Any, **classes: Any) -> list[RawCase]:
    return list(opened(root, *options, **classes).cases)


def test_images_and_masks_of_equal_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save(tmp_path / f"images/{name}.png", picture(ord(name)))
        save(tmp_path / f"masks/{name}.png", square(255))
    (tmp_path / "images" / ".hidden").write_text("ignored")
    first, second = read(tmp_path)
    assert (first.id, first.group, first.source) == ("a", "a", "images/a.png")
    assert second.id == "b"
    assert np.array_equal(first.image, picture(ord("a"))[None])
    assert np.array_equal(first.labels, square(1))
    assert first.spacing == (1.0, 1.0)
    assert first.volume is None


def test_several_masks_of_one_image_are_merged(tmp_path: Path) -> None:
    save(tmp_path / "images/benign (1).png", picture())
    save(tmp_path / "masks/benign (1)_mask.png", square(255, 0, 0))
    save(tmp_path / "masks/benign (1)_mask_1.png", square(255, 5, 5))
    save(tmp_path / "images/ISIC_7.jpg", picture())
    save(tmp_path / "masks/ISIC_7_segmentation.png", square(255))
    isic, benign = read(tmp_path)
    assert np.array_equal(benign.labels, square(1, 0, 0) + square(1, 5, 5))
    assert np.array_equal(isic.labels, square(1))


def test_an_image_whose_own_name_ends_like_a_mask_keeps_its_mask(tmp_path: Path) -> None:
    for name in ("a", "a_mask"):
        save(tmp_path / f"images/{name}.png", picture())
    save(tmp_path / "masks/a.png", square(255, 0, 0))
    save(tmp_path / "masks/a_mask.png", square(255, 5, 5))
    plain, masked = read(tmp_path)
    assert np.array_equal(plain.labels, square(1, 0, 0))
    assert np.array_equal(masked.labels, square(1, 5, 5))


def test_where_masks_overlap_the_later_wins(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a_mask.png", square(1, 0, 0))
    save(tmp_path / "masks/a_mask_1.png", square(2, 1, 1))
    (case,) = read(tmp_path, one=(1,), two=(2,))
    expected = square(1, 0, 0)
    expected[1:4, 1:4] = 2
    assert np.array_equal(case.labels, expected)


def test_mask_values_mean_what_the_classes_say(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a.png", square(7, 0, 0) + square(3, 0, 4) + square(200, 4, 4))
    (case,) = read(tmp_path, organ=(200,), lesion=(3, 7))
    assert np.array_equal(case.labels, square(2, 0, 0) + square(2, 0, 4) + square(1, 4, 4))


def test_0_1_masks_are_never_silently_empty(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a.png", square(1))
    with pytest.raises(InputError, match=r"a\.png: unknown mask value 1; allowed: 0, 255 .*data\.classes"):
        read(tmp_path)
    (case,) = read(tmp_path, lesion=(1, 255))
    assert np.array_equal(case.labels, square(1))


def test_inexact_jpg_masks_count_as_the_nearest_value(tmp_path: Path) -> None:
    shape = (64, 64)
    mask = np.kron(square(255, 1, 1, (8, 8)), np.ones((8, 8), np.uint8))
    mask = np.roll(mask, 3, axis=(0, 1))  # off JPG's blocks, so that it rings
    save(tmp_path / "images/a.jpg", picture(shape=shape))
    save(tmp_path / "masks/a.jpg", mask, quality=70)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "masks/a.jpg")))) > 2
    (case,) = read(tmp_path)
    assert np.array_equal(case.labels, mask // 255)


def test_areas_of_jpg_masks_far_from_every_listed_value_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "images/a.jpg", picture(shape=(64, 64)))
    save(tmp_path / "masks/a.jpg", np.kron(square(255, 1, 1, (8, 8)), np.ones((8, 8), np.uint8)))
    with pytest.raises(InputError, match=r"a\.jpg: an area of .* the value 255, farther than 32 .*: 0, 1; .* 0, 255;"):
        read(tmp_path, lesion=(1,))
    mask = np.zeros((64, 64), np.uint8)
    mask[8:24, 8:24], mask[40:45, 40:45] = 255, 128
    save(tmp_path / "masks/a.jpg", mask, quality=95)
    with pytest.raises(InputError, match=r"a\.jpg: an area of a lossy mask has the value 12\d, farther"):
        read(tmp_path)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("soft", [False, True])
def test_outlines_of_jpg_masks_may_ring(tmp_path: Path, quality: int, soft: bool) -> None:
    rows, columns = np.mgrid[:400, :400]
    distance = np.hypot(rows - 200, columns - 180) - 90
    mask = np.clip(127.5 - 255 * distance, 0, 255) if soft else 255 * (distance < 0)
    save(tmp_path / "images/a.jpg", picture(shape=(400, 400)))
    save(tmp_path / "masks/a.jpg", mask.astype(np.uint8), quality=quality)
    stored = np.asarray(Image.open(tmp_path / "masks/a.jpg")).astype(int)
    assert soft or np.minimum(stored, 255 - stored).max() > (32 if quality < 95 else 0)
    (case,) = read(tmp_path)
    assert np.array_equal(case.labels, stored > 127)


def test_a_color_a_class(tmp_path: Path) -> None:
    """In PNG exactly, in JPG nearly; gray values are colors, too."""
    shape = (64, 64)
    mask = np.zeros((*shape, 3), dtype=np.uint8)
    mask[8:24, 8:24], mask[32:48, 8:24], mask[32:48, 32:48] = (255, 0, 0), (0, 0, 255), 255
    expected = np.zeros(shape, dtype=np.uint8)
    expected[8:24, 8:24], expected[32:48, 8:24], expected[32:48, 32:48] = 1, 2, 3
    classes = {"lesion": ("#ff0000",), "cyst": ("#0000ff",), "bone": (255,)}
    save(tmp_path / "images/a.png", picture(shape=shape))
    save(tmp_path / "masks/a.png", mask)
    (case,) = read(tmp_path, **classes)
    assert np.array_equal(case.labels, expected)
    with pytest.raises(InputError, match=r"a\.png: unknown color #0000ff; .*list its colors, #000000, .*#ff0000"):
        read(tmp_path, lesion=("#ff0000",))
    with pytest.raises(InputError, match=r"a\.png: unknown color #0000ff; allowed: #000000, #ffffff;"):
        read(tmp_path)
    (tmp_path / "masks/a.png").unlink()
    save(tmp_path / "masks/a.jpg", mask, quality=95, subsampling=0)
    (case,) = read(tmp_path, **classes)
    assert np.array_equal(case.labels, expected)


def test_colors_of_a_gray_mask(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a.png", square(255))
    (case,) = read(tmp_path, lesion=("#FFFFFF",))
    assert np.array_equal(case.labels, square(1))


def test_background_by_name(tmp_path: Path) -> None:
    """Its values are no class; with others listed, 0 may be one."""
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a.png", square(255) + square(7, 5, 5))
    dataset = opened(tmp_path, background=(0, 7), lesion=(255,))
    assert dataset.classes == ("lesion",)
    assert np.array_equal(next(iter(dataset.cases)).labels, square(1))
    save(tmp_path / "masks/a.png", 255 - square(255))
    (case,) = read(tmp_path, background=(255,), lesion=(0,))
    assert np.array_equal(case.labels, square(1))


def test_masks_of_scaled_values(tmp_path: Path) -> None:
    """Within a thousandth of a whole number; anything else is shown with all its digits."""
    save(tmp_path / "images/a.nii.gz", picture(shape=(4, 4, 3)))
    mask = np.zeros((4, 4, 3), dtype=np.float32)
    mask[1, 1, 1], mask[2, 2, 1] = 0.999969, 13.0004
    save(tmp_path / "masks/a.nii.gz", mask)
    (case,) = read(tmp_path, 3, one=(1,), two=(13,))
    assert np.array_equal(case.labels, np.rot90(np.rint(mask) + (mask > 2) * -11))
    save(tmp_path / "masks/a.nii.gz", mask + np.float32(0.01) * (mask > 0.5))
    with pytest.raises(InputError, match=r"a\.nii\.gz: unknown mask value 13\.0103998; allowed: whole numbers"):
        read(tmp_path, 3, one=(1,), two=(13,))
    mask[0, 0, 0] = np.nan
    save(tmp_path / "masks/a.nii.gz", mask)
    with pytest.raises(InputError, match=r"a\.nii\.gz: a mask must have a number everywhere, found NaN"):
        read(tmp_path, 3, one=(1,))


def test_a_mask_of_several_channels_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "images/a.nii.gz", picture(shape=(4, 4, 3)))
    save(tmp_path / "masks/a.nii.gz", picture(1, shape=(4, 4, 3, 2)))
    with pytest.raises(InputError, match=r"a\.nii\.gz: a mask must be gray, or in colors of 8 bits; found 2 channels"):
        read(tmp_path, 3)


def test_a_palettes_colors_count(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    mask = Image.fromarray(square(1), mode="P")
    mask.putpalette([0, 0, 0, 255, 255, 255])
    (tmp_path / "masks").mkdir()
    mask.save(tmp_path / "masks/a.png")
    with pytest.raises(InputError, match=r"unknown mask value 255; .*; it has a palette, whose colors count"):
        read(tmp_path, lesion=(1,))
    (case,) = read(tmp_path)
    assert np.array_equal(case.labels, square(1))
    mask.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0])
    mask.save(tmp_path / "masks/a.png")
    with pytest.raises(InputError, match=r"a\.png: .*two indices of its palette are the same color"):
        read(tmp_path, lesion=(1,))


def test_names_that_look_the_same_match(tmp_path: Path) -> None:
    """macOS decomposes accents."""
    save(tmp_path / f"images/{unicodedata.normalize('NFC', 'é1')}.png", picture())
    save(tmp_path / f"masks/{unicodedata.normalize('NFD', 'é1')}.png", square(255))
    (case,) = read(tmp_path)
    assert case.id == unicodedata.normalize("NFC", "é1")


def test_a_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    (tmp_path / "images/a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/images/M\xfcller.png"))
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match=r"images/M\\xfcller\.png: its name is not in UTF-8; rename it"):
        read(tmp_path)


def test_what_systems_leave_in_folders_is_ignored(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a.png", square(255))
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png"):
        for folder_name in ("images", "masks"):
            (tmp_path / folder_name / name).write_bytes(b"junk")
    assert len(read(tmp_path)) == 1


@pytest.mark.parametrize(
    ("names", "hinted"),
    [
        (["p1_a", "p1_b", "p2_a"], True),
        (["case_001", "case_002", "case_003"], False),
        (["benign_1", "benign_2", "normal_1"], False),
        (["ISIC2018_1", "ISIC2018_2"], False),
    ],
)
def test_images_of_one_patient_are_pointed_out(tmp_path: Path, names: list[str], hinted: bool) -> None:
    for name in names:
        save(tmp_path / f"images/{name}.png", picture())
        save(tmp_path / f"masks/{name}.png", square(255))
    notices = opened(tmp_path).notices
    assert bool(notices) == hinted
    if hinted:
        assert "p1_a and p1_b count as two patients" in notices[0]
        pattern = notices[0].partition("set it to ")[2]
        assert [case.group for case in read(tmp_path, 2, pattern)] == ["p1", "p1", "p2"]
        assert opened(tmp_path, 2, pattern).notices == ()


def test_the_group_comes_from_the_name(tmp_path: Path) -> None:
    for name in ("p1_a", "p1_b", "p2_a"):
        save(tmp_path / f"images/{name}.png", picture())
        save(tmp_path / f"masks/{name}.png", square(255))
    assert [case.group for case in read(tmp_path, group="^(p[0-9])_")] == ["p1", "p1", "p2"]
    with pytest.raises(InputError, match=r"p1_a\.png: data\.folder\.group '\^\(q\)' does not match 'p1_a'"):
        read(tmp_path, group="^(q)")


def test_a_volume_is_a_case_or_its_slices(tmp_path: Path) -> None:
    image, mask = np.zeros((6, 5, 4), np.int16), np.zeros((6, 5, 4), np.uint8)
    image[..., 1:] = picture(shape=(6, 5, 3))
    mask[2, 2, 1:3] = 1
    affine = np.diag([0.5, 0.6, 3.0, 1.0])
    save(tmp_path / "images/scan.nii.gz", image, affine=affine)
    save(tmp_path / "masks/scan.nii.gz", mask, affine=affine)
    (volume,) = read(tmp_path, 3, lesion=(1,))
    assert volume.image.shape == (1, 5, 6, 4)
    assert volume.spacing == pytest.approx((0.6, 0.5, 3.0))
    slices = read(tmp_path, 2, lesion=(1,))  # the first one is blank, in every scan alike, and left out
    assert [case.id for case in slices] == ["scan-001", "scan-002", "scan-003"]
    assert [case.position for case in slices] == [1, 2, 3]
    assert {(case.volume, case.group) for case in slices} == {("scan", "scan")}
    for case in slices:
        assert np.array_equal(case.image, volume.image[..., case.position])
        assert np.array_equal(case.labels, volume.labels[..., case.position])
        assert case.spacing == pytest.approx((0.6, 0.5))


def test_pictures_are_no_volumes(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a.png", square(255))
    with pytest.raises(InputError, match=r"images/a\.png: is 2-D, but data\.spatial_dims is 3"):
        read(tmp_path, 3)


def test_what_lacks_its_counterpart_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images: no such folder \(data\.root"):
        read(tmp_path)
    save(tmp_path / "images/a.png", picture())
    with pytest.raises(InputError, match=r"masks: no such folder"):
        read(tmp_path)
    save(tmp_path / "masks/b_mask.png", square(255))
    with pytest.raises(InputError, match=r"masks/b_mask\.png: a mask without an image; .* has no 'b'"):
        read(tmp_path)
    (tmp_path / "masks/b_mask.png").unlink()
    with pytest.raises(InputError, match=r"images/a\.png: an image without a mask; .* has no 'a'"):
        read(tmp_path)


def test_sizes_must_agree(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a.png", square(255, shape=(9, 10)))
    with pytest.raises(InputError, match=r"masks/a\.png: size \(9, 10\) differs from \(8, 10\) of .*images/a\.png"):
        read(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "images/a.jpg", picture())
    save(tmp_path / "masks/a.png", square(255))
    with pytest.raises(InputError, match=r"images/a\.png: duplicate case id 'a', also .*images/a\.jpg"):
        read(tmp_path)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_values_that_are_no_numbers_are_counted_over_the_volume(tmp_path: Path, spatial_dims: int) -> None:
    values = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    values[0, 0, 1], values[2, 3, 2] = np.nan, np.inf
    affine = np.diag([1.0, 1, 3, 1])
    save(tmp_path / "images/a1.nii", values, affine=affine)
    save(tmp_path / "masks/a1.nii", (values > 0).astype(np.uint8), affine=affine)
    with pytest.raises(InputError, match=r"^images/a1\.nii: the image of case 'a1' has 2 NaN or infinite values$"):
        read(tmp_path, spatial_dims, lesion=(1,))
