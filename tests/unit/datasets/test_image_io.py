"""Every image format: gray or colors as a viewer shows them, in the file's own order of axes, or one line."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from llm4seg.datasets.image_data import storable
from llm4seg.datasets.image_io import read_image, read_mask, stem
from llm4seg.utils.errors import InputError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], axis=-1)
BLOT = np.zeros((16, 20), dtype=np.uint8)
BLOT[2:7, 3:9] = 255


def flat(path: Path, mask: bool = False) -> np.ndarray:
    """A 2-D file's values (C, rows, columns)."""
    image = (read_mask if mask else read_image)(path)
    assert image.flat
    return image.values[..., 0]


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.tif", "a.tiff"])
def test_lossless_pictures_keep_every_value(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write = tifffile.imwrite if "tif" in name else (lambda path, array: Image.fromarray(array).save(path))
    write(path, GREY)
    assert np.array_equal(flat(path), GREY[None])
    write(path, COLOUR)
    assert np.array_equal(flat(path), COLOUR.transpose(2, 0, 1))
    assert (read_image(path).unit, read_image(path).placed) == ("px", "picture")


def test_16_bit_pictures_keep_every_value(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 200
    Image.fromarray(deep).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", deep)
    for name in ("a.png", "a.tif"):
        values = flat(tmp_path / name)
        assert values.dtype == np.int32
        assert np.array_equal(values[0], deep)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colors_keep_every_value(tmp_path: Path, channels: int) -> None:
    """Gray with alpha, RGB and RGB with alpha, of which Pillow keeps 8 bits."""
    deep = np.random.default_rng(0).integers(0, 1 << 16, (5, 7, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    colors = deep[..., : channels - (channels % 2 == 0)]
    assert np.array_equal(flat(tmp_path / "a.png"), colors.transpose(2, 0, 1))


def test_transparency_and_palette_become_color(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("RGBA").save(tmp_path / "clear.png")
    assert np.array_equal(flat(tmp_path / "clear.png"), COLOUR.transpose(2, 0, 1))
    indices = np.array([[0, 1], [2, 0]], dtype=np.uint8)
    palette = Image.fromarray(indices, mode="P")
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 100, 0])
    palette.save(tmp_path / "palette.png")
    colormap = np.zeros((3, 256), dtype=np.uint16)
    colormap[0, 1], colormap[1, 2] = 200 * 257, 100 * 257
    tifffile.imwrite(tmp_path / "palette.tif", indices, photometric="palette", colormap=colormap)
    for name in ("palette.png", "palette.tif"):
        for mask in (False, True):
            red, green, blue = flat(tmp_path / name, mask)
            assert (red.tolist(), green.tolist()) == ([[0, 200], [0, 0]], [[0, 0], [100, 0]])
            assert not blue.any()


def test_masks_with_0_as_white_are_not_inverted(tmp_path: Path) -> None:
    Image.fromarray(BLOT).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    assert np.asarray(Image.open(tmp_path / "palette.png"))[0, 0] == 1  # index 0 is white
    tifffile.imwrite(tmp_path / "byte.tif", 255 - BLOT, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "word.tif", 65535 - BLOT.astype(np.uint16), photometric="miniswhite")
    tifffile.imwrite(tmp_path / "bits.tif", BLOT == 0, photometric="miniswhite")
    Image.fromarray(BLOT > 0).save(tmp_path / "fax.tif", compression="group4")
    for name in ("palette.png", "byte.tif", "word.tif", "bits.tif", "fax.tif"):
        assert np.array_equal(flat(tmp_path / name, mask=True), BLOT[None]), name
    tifffile.imwrite(tmp_path / "signed.tif", BLOT.astype(np.int16), photometric="miniswhite")
    with pytest.raises(InputError, match=r"signed\.tif: .*0 is white in values of type int16"):
        read_mask(tmp_path / "signed.tif")


def test_a_mask_in_the_alpha_channel(tmp_path: Path) -> None:
    white, opaque = np.full_like(BLOT, 255), np.full_like(BLOT, 255)
    for name, (gray, alpha) in {
        "drawn.png": (white, BLOT),
        "black.png": (0 * BLOT, BLOT),
        "opaque.png": (BLOT, opaque),
        "both.png": (BLOT, BLOT),
    }.items():
        Image.fromarray(np.stack([gray, gray, gray, alpha], axis=-1)).save(tmp_path / name)
        Image.fromarray(np.stack([gray, alpha], axis=-1), mode="LA").save(tmp_path / f"gray_{name}")
        extra = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
        tifffile.imwrite(tmp_path / f"{name}.tif", np.stack([gray, gray, gray, alpha], axis=-1), **extra)
        for path in (name, f"gray_{name}", f"{name}.tif"):
            assert np.array_equal(flat(tmp_path / path, mask=True), BLOT[None]), path
    Image.fromarray(np.stack([BLOT, BLOT, BLOT, BLOT.T.reshape(BLOT.shape)], axis=-1)).save(tmp_path / "differ.png")
    with pytest.raises(InputError, match=r"differ\.png: .*its transparent pixels hide several colors"):
        read_mask(tmp_path / "differ.png")
    assert np.array_equal(flat(tmp_path / "differ.png"), np.stack([BLOT] * 3))


def test_transparent_pixels_of_a_mask_are_background(tmp_path: Path) -> None:
    """Nothing drawn on a white layer; red on transparent white; and BUSI's masks, whose alpha is 0 throughout."""
    white, clear = np.full_like(BLOT, 255), np.zeros_like(BLOT)
    Image.fromarray(np.stack([white, white, white, clear], axis=-1)).save(tmp_path / "nothing.png")
    assert not flat(tmp_path / "nothing.png", mask=True).any()
    green = np.where(BLOT, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([white, green, green, BLOT], axis=-1)).save(tmp_path / "red.png")
    assert np.array_equal(flat(tmp_path / "red.png", mask=True), np.stack([BLOT, clear, clear]))
    Image.fromarray(np.stack([BLOT, BLOT, BLOT, clear], axis=-1)).save(tmp_path / "busi.png")
    assert np.array_equal(flat(tmp_path / "busi.png", mask=True), BLOT[None])
    Image.fromarray(np.stack([clear, clear, clear, clear], axis=-1)).save(tmp_path / "normal.png")
    assert not flat(tmp_path / "normal.png", mask=True).any()
    soft = (BLOT // 2).astype(np.uint8)
    Image.fromarray(np.stack([white, white, white, soft], axis=-1)).save(tmp_path / "soft.png")
    assert np.array_equal(flat(tmp_path / "soft.png", mask=True), soft[None])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    """By the tag of EXIF and TIFF, as Pillow turns them."""
    wide = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 50, np.ones((16, 16), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(wide)
    picture.save(tmp_path / "a.png", exif=exif)
    picture.save(tmp_path / "a.jpg", exif=exif, quality=100)
    tifffile.imwrite(tmp_path / "a.tif", wide, extratags=[(274, "H", 1, orientation, True)])
    color = np.stack([wide, wide + 1, wide], axis=-1)
    tifffile.imwrite(tmp_path / "color.tif", color, extratags=[(274, "H", 1, orientation, True)])
    (tmp_path / "deep.png").write_bytes(_with_exif(imagecodecs.png_encode(color.astype(np.uint16) * 256), exif))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    for name in ("a.png", "a.tif", "color.tif"):
        assert np.array_equal(flat(tmp_path / name)[0], expected), name
    assert np.array_equal(flat(tmp_path / "deep.png")[0], expected.astype(int) * 256)
    assert np.abs(flat(tmp_path / "a.jpg")[0].astype(int) - expected).max() < 4


def _with_exif(png: bytes, exif: Any) -> bytes:
    """The PNG with an eXIf chunk behind its header."""
    content = exif.tobytes().removeprefix(b"Exif\x00\x00")
    chunk = b"eXIf" + content
    return png[:33] + len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:]


def test_a_one_bit_mask_is_0_and_255(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", bits, photometric="minisblack")
    for name in ("a.png", "a.tif"):
        assert flat(tmp_path / name, mask=True)[0].tolist() == [[255, 0], [0, 255]]


def test_a_gray_mask_saved_in_color_counts_as_gray(tmp_path: Path) -> None:
    Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "gray.png")
    assert np.array_equal(flat(tmp_path / "gray.png", mask=True), GREY[None])
    Image.fromarray(COLOUR).save(tmp_path / "color.png")
    assert np.array_equal(flat(tmp_path / "color.png", mask=True), COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "lzma"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, compression=compression)
    assert np.array_equal(flat(tmp_path / "a.tif"), COLOUR.transpose(2, 0, 1))


def test_jpeg_in_tiff_is_lossy_and_in_color(tmp_path: Path) -> None:
    smooth = np.stack([BLOT // 2, BLOT // 3, BLOT // 4], axis=-1)
    Image.fromarray(smooth).save(tmp_path / "a.tif", compression="jpeg")
    image = read_image(tmp_path / "a.tif")
    assert image.lossy
    assert np.array_equal(image.values[..., 0], np.asarray(Image.open(tmp_path / "a.tif")).transpose(2, 0, 1))
    assert np.abs(image.values[..., 0].astype(int) - smooth.transpose(2, 0, 1)).mean() < 8


def test_colors_of_other_kinds(tmp_path: Path) -> None:
    """CMYK as Pillow converts it; what is not converted is refused."""
    inks = np.random.default_rng(0).integers(0, 255, (4, 5, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "inks.tif", inks, photometric="separated")
    expected = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(flat(tmp_path / "inks.tif"), expected)
    tifffile.imwrite(tmp_path / "lab.tif", COLOUR, photometric="cielab")
    with pytest.raises(InputError, match=r"lab\.tif: .*found colors of kind CIELAB, allowed: .*save as RGB"):
        read_image(tmp_path / "lab.tif")


def test_pages_of_a_tiff_are_slices(tmp_path: Path) -> None:
    volume = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    image = read_image(tmp_path / "a.tif")
    assert np.array_equal(image.values, np.moveaxis(volume, 0, -1)[None])
    assert not image.flat


def test_pages_that_are_no_stack_are_refused(tmp_path: Path) -> None:
    """Or the second would be lost; a preview is none."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY)
        file.write(GREY[:2])
    with pytest.raises(InputError, match=r"a\.tif: .*2 images that differ in size, type or colors, allowed: one"):
        read_image(tmp_path / "a.tif")
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(GREY[:2], subfiletype=1)
        file.write(GREY)
    assert np.array_equal(flat(tmp_path / "b.tif"), GREY[None])


def test_channels_and_slices_of_an_imagej_hyperstack(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (5, 2, 6, 8), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    assert np.array_equal(read_image(tmp_path / "a.tif").values, stack.transpose(1, 2, 3, 0))


def test_nifti_has_its_affine(tmp_path: Path) -> None:
    volume = np.zeros((4, 6, 3), dtype=np.int16)
    volume[3, 5, 2] = -7
    affine = np.diag([0.5, 0.7, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert np.array_equal(image.values, volume[None])
    assert image.affine == pytest.approx(affine, abs=1e-6)
    assert (image.unit, image.placed, image.values.dtype) == ("mm", "file", np.int16)


@pytest.mark.parametrize(("unit", "mm"), [("micron", 1e-3), ("mm", 1), ("meter", 1e3)])
def test_nifti_lengths_are_in_mm(tmp_path: Path, unit: str, mm: float) -> None:
    affine = np.array([[2.0, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    file = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), affine)
    file.header.set_xyzt_units(xyz=unit)
    nibabel.save(file, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").affine[:3] == pytest.approx(affine[:3] * mm)


def test_scaled_nifti_gives_true_intensities_and_a_fourth_axis_is_channels(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(size=(4, 6, 3, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4), dtype=np.float32), tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii")
    assert image.values.dtype == np.float32
    assert np.array_equal(image.values, volume.transpose(3, 0, 1, 2))
    nibabel.save(nibabel.Nifti1Image(volume[:, :, :, None], np.eye(4), dtype=np.float32), tmp_path / "vectors.nii")
    assert np.array_equal(read_image(tmp_path / "vectors.nii").values, image.values)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    content = bytearray(nibabel.Nifti1Image(stored, np.eye(4)).to_bytes())
    content[112:120] = np.array([2, -1024], dtype="<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "a.nii").values[0], stored * 2.0 - 1024)


def test_complex_nifti_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), np.complex64), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"a\.nii: .*values of type complex64, allowed: whole numbers"):
        read_image(tmp_path / "a.nii")


def test_colors_in_nifti_are_channels(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 255, (4, 6, 3, 3), dtype=np.uint8)
    rgb24 = colors.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(rgb24, np.eye(4)), tmp_path / "a.nii")
    assert np.array_equal(read_image(tmp_path / "a.nii").values, np.moveaxis(colors, -1, 0))


def test_an_affine_without_an_inverse_is_named(tmp_path: Path) -> None:
    content = bytearray(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes())
    content[312:328] = bytes(16)  # srow_z
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii: .*its affine has no inverse"):
        read_image(tmp_path / "a.nii")


def test_a_wrong_checksum_is_found(tmp_path: Path) -> None:
    file = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    content = bytearray(gzip.compress(file.to_bytes(), compresslevel=0))
    content[-300] ^= 1  # a voxel
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii\.gz: .*damaged: CRC check failed"):
        read_image(tmp_path / "a.nii.gz")


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
    for values in ([0, 65535], [-3, 2**30], [0.5, -1.0], [0, 255], [0, 2**24 + 1]):
        for dtype in (np.uint8, np.int8, np.uint16, np.int64, np.uint32, np.float64, ">i2"):
            array = np.array(values)
            if np.array_equal(array.astype(dtype), array):
                assert np.array_equal(storable(array.astype(dtype)), array)
                assert storable(array.astype(dtype)).dtype in (np.uint8, np.int16, np.int32, np.float32)


@pytest.mark.parametrize(
    "values",
    [np.array([2**40]), np.array([2.0**40 + 1]), np.array([2**32 - 1], np.uint32), np.array([1j]), np.array(["a"])],
)
def test_what_no_type_keeps_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="allowed"):
        storable(values)
