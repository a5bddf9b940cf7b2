"""Readers of PNG and JPG (Pillow; imagecodecs for colors of 16 bits) and TIFF (tifffile, imagecodecs)."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.datasets.image_data import ImageData, picture, without_alpha

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it warns of ends in an error here, or does not matter
UPRIGHT = {  # what turns an array (rows, columns) upright, by the orientation tag of EXIF and TIFF 6.0
    1: lambda array: array,
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: array[::-1].swapaxes(0, 1),
    7: lambda array: array[::-1, ::-1].swapaxes(0, 1),
    8: lambda array: array[:, ::-1].swapaxes(0, 1),
}
EXIF_ORIENTATION = 0x0112
PNG_COLORS = (2, 4, 6)  # of the header's color types: RGB, gray + alpha, RGB + alpha
GRAY, ALPHA = ("1", "L", "LA", "La"), ("LA", "RGBA")
LOSSY = ("JPEG", "MPO")  # formats that Pillow finds in .jpg files


def read_picture(path: Path, mask: bool) -> ImageData:
    """A PNG or JPG, upright by its EXIF orientation: gray, or red, green and blue; 1 bit becomes 0 and 255."""
    from PIL import Image

    with Image.open(path) as file:
        palette = file.mode == "P"
        orientation, lossy = file.getexif().get(EXIF_ORIENTATION, 1), file.format in LOSSY
        if file.format == "PNG" and _is_deep_color(path):  # Pillow keeps 8 of its 16 bits
            import imagecodecs

            values = imagecodecs.png_decode(path.read_bytes())
            has_alpha = values.shape[-1] in (2, 4)
        else:
            image = _in_plain_mode(file)
            values, has_alpha = np.array(image), image.mode in ALPHA
    values = UPRIGHT.get(orientation, UPRIGHT[1])(values)
    values_CS = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    return picture(without_alpha(values_CS, mask) if has_alpha else values_CS, lossy, palette)


def _is_deep_color(path: Path) -> bool:
    """Whether a PNG has several channels of 16 bits, by its header (PNG 1.2, 11.2.2)."""
    with path.open("rb") as file:
        header = file.read(26)
    return header[24] == 16 and header[25] in PNG_COLORS


def _in_plain_mode(image: Any) -> Any:
    """The image as gray (8 bits, or what the file has) or RGB, with alpha where it has transparency."""
    if image.mode == "P":
        _check_palette(np.array(image), np.array(image.getpalette("RGBA")).reshape(-1, 4))
    if image.mode.startswith(("I", "F")):
        return image
    kind = ("L", "LA") if image.mode in GRAY else ("RGB", "RGBA")
    return image.convert(kind[image.has_transparency_data])


def _check_palette(indices: np.ndarray, palette: np.ndarray) -> None:
    """Raise ValueError where different indices are the same color: what they told apart would be lost."""
    used = np.unique(indices)
    if used.max() < len(palette) and len(np.unique(palette[used], axis=0)) < len(used):
        raise ValueError("two indices of its palette are the same color, allowed: a color each; save it as gray")


def read_tiff(path: Path, mask: bool) -> ImageData:
    """A TIFF: samples (colors) are channels, pages are slices. Palettes become colors, 0-is-white is inverted."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        whole = [one for one in file.series if not one.keyframe.is_reduced]  # the others are previews
        if len(whole) != 1:
            raise ValueError(f"{len(whole)} images that differ in size, type or colors, allowed: one, or equal pages")
        series, page = whole[0], whole[0].keyframe
        values, axes = series.asarray(), series.axes
        values = UPRIGHT[_orientation(page)](_rows_and_columns_first(values, axes))
        axes = "YX" + axes.replace("Y", "", 1).replace("X", "", 1)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            palette = _palette(page.colormap)
            _check_palette(values, palette)
            values, axes = palette[values], f"{axes}S"
        has_alpha = "S" in axes and len(page.extrasamples) > 0 and int(page.extrasamples[-1]) > 0
        photometric, bits, jpeg = page.photometric.name, page.bitspersample, "JPEG" in page.compression.name
    channel = next((axes.index(name) for name in "SC" if name in axes), None)
    values_CS = values[None] if channel is None else np.moveaxis(values, channel, 0)
    if has_alpha:
        values_CS = without_alpha(values_CS, mask)
    return picture(_as_gray_or_rgb(values_CS, photometric, bits, jpeg), jpeg, photometric == "PALETTE")


def _orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    return int(tag.value) if tag is not None and int(tag.value) in UPRIGHT else 1


def _rows_and_columns_first(values: np.ndarray, axes: str) -> np.ndarray:
    if "Y" not in axes or "X" not in axes:
        raise ValueError(f"found axes {axes}, allowed: rows (Y) and columns (X) among them")
    return np.moveaxis(values, (axes.index("Y"), axes.index("X")), (0, 1))


def _palette(colormap: np.ndarray) -> np.ndarray:
    """A TIFF's palette as uint8 (colors, 3): it has 16 bits, but some programs write numbers up to 255."""
    return np.moveaxis(colormap if colormap.max() < 256 else colormap >> 8, 0, -1).astype(np.uint8)


def _as_gray_or_rgb(values_CS: np.ndarray, photometric: str, bits: int, jpeg: bool) -> np.ndarray:
    """Channels as a viewer shows them. Raises ValueError for color spaces that are not converted."""
    if photometric == "MINISWHITE":
        if values_CS.dtype == bool:
            return ~values_CS
        if values_CS.dtype.kind != "u":
            raise ValueError(f"0 is white in values of type {values_CS.dtype}, allowed: unsigned; save with 0 as black")
        return np.array(2**bits - 1, values_CS.dtype) - values_CS
    if photometric == "SEPARATED":
        from PIL import Image

        if values_CS.dtype != np.uint8 or len(values_CS) != 4 or values_CS.ndim != 3:
            raise ValueError("found inks other than CMYK of 8 bits; save as RGB")
        return np.moveaxis(np.array(Image.fromarray(np.moveaxis(values_CS, 0, -1), "CMYK").convert("RGB")), -1, 0)
    if photometric in ("MINISBLACK", "RGB", "PALETTE", "MASK") or (photometric == "YCBCR" and jpeg):
        return values_CS
    raise ValueError(f"found colors of kind {photometric}, allowed: gray, palette, RGB, CMYK; save as RGB")
