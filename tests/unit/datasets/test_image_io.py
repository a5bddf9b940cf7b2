"""Every image format, read as (channels, rows, columns[, slices])."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from llm4seg.datasets.image_io import read_image, read_mask, stem, storable
from llm4seg.utils.errors import InputError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], axis=-1)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.tif", "a.tiff"])
def test_lossless_pictures_keep_every_value(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write = tifffile.imwrite if "tif" in name else (lambda path, array: Image.fromarray(array).save(path))
    write(path, GREY)
    assert np.array_equal(read_image(path).values, GREY[None])
    write(path, COLOUR)
    assert np.array_equal(read_image(path).values, COLOUR.transpose(2, 0, 1))
    assert read_image(path).spacing == (1.0, 1.0)


def test_16_bit_pictures_keep_every_value(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 200
    Image.fromarray(deep).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", deep)
    for name in ("a.png", "a.tif"):
        values = read_image(tmp_path / name).values
        assert values.dtype == np.int32
        assert np.array_equal(values[0], deep)


def test_transparency_and_palette_become_color(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("RGBA").save(tmp_path / "clear.png")
    assert np.array_equal(read_image(tmp_path / "clear.png").values, COLOUR.transpose(2, 0, 1))
    palette = Image.fromarray(np.array([[0, 1], [2, 0]], dtype=np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 100, 0])
    palette.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").values[:, 0, 1].tolist() == [200, 0, 0]
    assert read_mask(tmp_path / "palette.png").values[0].tolist() == [[0, 1], [2, 0]]


def test_a_rotated_photograph_is_turned_upright(tmp_path: Path) -> None:
    wide = np.zeros((16, 32), dtype=np.uint8)
    wide[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    Image.fromarray(wide).save(tmp_path / "a.jpg", exif=exif, quality=95)
    values = read_image(tmp_path / "a.jpg").values[0]
    assert values.shape == (32, 16)
    assert values[:12].mean() > 240
    assert values[20:].mean() < 15


def test_a_one_bit_mask_is_0_and_255(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", bits)
    for name in ("a.png", "a.tif"):
        assert read_mask(tmp_path / name).values[0].tolist() == [[255, 0], [0, 255]]


def test_a_grey_mask_saved_in_color_counts_as_grey(tmp_path: Path) -> None:
    Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "grey.png")
    assert np.array_equal(read_mask(tmp_path / "grey.png").values, GREY[None])
    Image.fromarray(COLOUR).save(tmp_path / "color.png")
    with pytest.raises(InputError, match=r"color\.png: a mask must be grey, found 3 channels that differ"):
        read_mask(tmp_path / "color.png")


def test_pages_of_a_tiff_are_slices(tmp_path: Path) -> None:
    volume = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    assert np.array_equal(read_image(tmp_path / "a.tif").values, np.moveaxis(volume, 0, -1)[None])


def test_nifti_is_turned_like_a_picture_and_keeps_its_spacing(tmp_path: Path) -> None:
    """In the common orientation axis 0 runs to the right and axis 1 to the front: front is up, right is right."""
    volume = np.zeros((4, 6, 3), dtype=np.int16)
    volume[3, 5, 2] = -7
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.5, 0.7, 2.0, 1.0])), tmp_path / "a.nii.gz")
    picture = read_image(tmp_path / "a.nii.gz")
    assert picture.values.shape == (1, 6, 4, 3)
    assert picture.values[0, 0, 3, 2] == -7
    assert picture.spacing == pytest.approx((0.7, 0.5, 2.0))
    assert picture.orientation == "RAS"
    assert picture.values.dtype == np.int16


def test_scaled_nifti_gives_true_intensities_and_a_fourth_axis_is_channels(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(size=(4, 6, 3, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4), dtype=np.float32), tmp_path / "a.nii")
    picture = read_image(tmp_path / "a.nii")
    assert picture.values.dtype == np.float32
    assert np.array_equal(picture.values, np.rot90(volume).transpose(3, 0, 1, 2))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.nii", "a.nii.gz"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(InputError, match=rf"{name}: cannot be read as an image"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.nii.gz"])
def test_a_cut_off_file_is_named(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(noise).save(path)
    elif name.endswith("tif"):
        tifffile.imwrite(path, noise)
    else:
        nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"{name}: cannot be read as an image"):
        read_image(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt: not a known image format; allowed: \.png, .*\.nii\.gz"):
        read_image(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 2, 2), np.uint8), np.eye(4)), tmp_path / "five.nii")
    with pytest.raises(InputError, match=r"five\.nii: found an image of shape .*, allowed: 2 or 3 dimensions"):
        read_image(tmp_path / "five.nii")


def test_stems() -> None:
    assert [stem(Path(name)) for name in ("x/a.b.png", "a.nii.gz", "A.JPG")] == ["a.b", "a", "A"]


def test_storable_keeps_values() -> None:
    for values in ([0, 65535], [-3, 2**30], [0.5, -1.0], [0, 255]):
        for dtype in (np.uint8, np.int8, np.uint16, np.int64, np.uint32, np.float64, ">i2"):
            array = np.array(values)
            if np.array_equal(array.astype(dtype), array):
                assert np.array_equal(storable(array.astype(dtype)), array)
                assert storable(array.astype(dtype)).dtype in (np.uint8, np.int16, np.int32, np.float32)
