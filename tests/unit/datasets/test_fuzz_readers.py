"""Files of any bytes: an image, or one line that names the file; never another exception."""

import gzip
import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llm4seg.datasets.folder import folder
from llm4seg.datasets.image_io import read_image, read_mask
from llm4seg.datasets.mask_labels import labels_of
from llm4seg.utils.errors import InputError
from tests.fuzz import OPTIONS, check_for_minutes
from tests.tiny import data_section

CLASSES = {"lesion": (255, "#ff0000")}
GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOR = np.stack([GRAY, GRAY + 1, GRAY], axis=-1)


def _saved(write: Callable[[io.BytesIO], None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _saved_by_itk(image: sitk.Image, ending: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder_name:
        sitk.WriteImage(image, f"{folder_name}/a{ending}")
        return Path(f"{folder_name}/a{ending}").read_bytes()


def _pictures() -> dict[str, list[bytes]]:
    """Small files of every kind, by ending."""
    modes = [Image.fromarray(COLOR).convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    nifti = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([-1, 2, 3, 1])).to_bytes()
    rgb24 = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    niftis = [nifti, nibabel.Nifti1Image(rgb24, np.eye(4)).to_bytes()]
    volume = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    tiffs: list[dict[str, object]] = [{}, {"compression": "lzw"}, {"compression": "zlib", "tile": (16, 16)}]
    return {
        ".png": [_saved(lambda file, one=one: one.save(file, "png")) for one in modes]
        + [bytes(imagecodecs.png_encode(COLOR.astype(np.uint16) * 257))],
        ".jpg": [_saved(lambda file, one=one: one.save(file, "jpeg")) for one in modes if one.mode in ("L", "RGB")],
        ".tif": [_saved(lambda file, one=one: tifffile.imwrite(file, COLOR, **one)) for one in tiffs]
        + [_saved(lambda file: tifffile.imwrite(file, np.stack([GRAY, GRAY]), photometric="miniswhite"))]
        + [_saved(lambda file, one=one: one.save(file, "tiff", compression="group4")) for one in modes[:1]],
        ".nii": niftis,
        **{ending: [_saved_by_itk(volume, ending)] for ending in (".nrrd", ".mha")},
        ".dcm": [_saved_by_itk(volume[:, :, 0], ".dcm")],
        ".nii.gz": [gzip.compress(one) for one in niftis] + [gzip.compress(nifti, 0)],
    }


PICTURES = _pictures()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file's ending and its bytes: any, or those of a good file with some changed, removed, inserted or cut off."""
    ending = draw(st.sampled_from(sorted(PICTURES)))
    if draw(st.integers(0, 9)) == 0:
        return ending, draw(st.binary(max_size=400))
    content = bytearray(draw(st.sampled_from(PICTURES[ending])))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.integers(0, 4)):
            case 0 | 1:
                content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case 2:
                content[place : place + draw(st.integers(1, 8))] = draw(st.binary(max_size=8))
            case 3:
                del content[place:]
            case 4:
                content[place:place] = draw(st.binary(max_size=16))
    if ending == ".nii.gz" and draw(st.booleans()):  # damage within, behind a right checksum
        inner = bytearray(gzip.decompress(PICTURES[ending][0]))
        inner[draw(st.integers(0, 347))] = draw(st.integers(0, 255))
        content = bytearray(gzip.compress(bytes(inner), 1))
    return ending, bytes(content)


def check(folder_path: Path, ending: str, content: bytes) -> None:
    """Read it as an image, as a mask and as a case; any exception but an InputError of one line fails."""
    for name in ("images", "masks"):
        (folder_path / name).mkdir(exist_ok=True)
        for old in (folder_path / name).iterdir():
            old.unlink()
    image, mask = (folder_path / name / f"a{ending}" for name in ("images", "masks"))
    image.write_bytes(content)
    mask.write_bytes(PICTURES[ending][0])
    flat, deep = (data_section(folder_path, dims, classes=CLASSES) for dims in (2, 3))
    for attempt in (
        lambda: read_image(image),
        lambda: labels_of(read_mask(image), CLASSES, image),
        lambda: list(folder(flat).cases),
        lambda: list(folder(deep).cases),
    ):
        try:
            attempt()
        except InputError as refusal:
            message = str(refusal)
        else:
            continue
        assert "\n" not in message
        assert str(folder_path) in message


@settings(**OPTIONS, max_examples=150, derandomize=True)
@given(damaged())
def test_some_damaged_files(tmp_path_factory: pytest.TempPathFactory, file: tuple[str, bytes]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(tmp_path_factory.getbasetemp(), *file)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_damaged_files(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_for_minutes(lambda file: check(tmp_path, *file), damaged())
