"""A user's own folder: how names are matched, what mask values mean, and every mistake one can make there."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from llm4seg.config.schema import FolderData
from llm4seg.datasets.cases import RawCase
from llm4seg.datasets.folder import folder
from llm4seg.utils.errors import InputError


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


def read(root: Path, spatial_dims: int = 2, group: str | None = None, **classes: tuple[int, ...]) -> list[RawCase]:
    section = FolderData(path=root, classes=classes or {"lesion": (255,)}, group=group)
    return list(folder(section, spatial_dims).cases)


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
    with pytest.raises(InputError, match=r"a\.png: unknown mask value 1; allowed: 0, 255 .*data\.folder\.classes"):
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


def test_a_mirrored_mask_is_found_out(tmp_path: Path) -> None:
    save(tmp_path / "images/a.nii.gz", picture(shape=(4, 4, 3)))
    save(tmp_path / "masks/a.nii.gz", square(1, 0, 0, (4, 4, 3)), affine=np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(InputError, match=r"masks/a\.nii\.gz: oriented LAS, but .*images/a\.nii\.gz is RAS"):
        read(tmp_path, 3, lesion=(1,))


def test_pictures_are_no_volumes(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture())
    save(tmp_path / "masks/a.png", square(255))
    with pytest.raises(InputError, match=r"images/a\.png: is 2-D, but data\.spatial_dims is 3"):
        read(tmp_path, 3)


def test_what_lacks_its_counterpart_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images: no such folder \(data\.folder\.path"):
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
