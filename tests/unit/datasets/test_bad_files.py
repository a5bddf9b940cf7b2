"""Sizes, places and directions of voxels that cannot be: one line that names the file and says what is allowed."""

import locale
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from llm4seg.datasets.image_io import read_image
from llm4seg.utils.errors import InputError
from tests.dicom import DIRECTIONS, VALUES, itk_image, save_series

SIZES = "allowed: a number above 0 for each axis; leave the line out where the sizes are not known"


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        read_image(path)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert "0x" not in message  # a place in memory, other in each run
    return message.removeprefix(f"{path}: cannot be read as an image: ")


def edited(path: Path, old: bytes, new: bytes, source: bytes) -> Path:
    assert source.count(old) == 1
    path.write_bytes(source.replace(old, new))
    return path


def metaimage(folder: Path) -> bytes:
    sitk.WriteImage(itk_image(DIRECTIONS["LPS"]), folder / "good.mha")
    return (folder / "good.mha").read_bytes()


def nrrd(folder: Path) -> bytes:
    sitk.WriteImage(itk_image(DIRECTIONS["LPS"]), folder / "good.nrrd")
    return (folder / "good.nrrd").read_bytes()


@pytest.mark.parametrize(
    "sizes", ["0 0.75 3", "-0.5 0.75 3", "nan 0.75 3", "inf 0.75 3", "0.5 0.75", "nan nan nan", ""]
)
@pytest.mark.parametrize("name", ["ElementSpacing", "ElementSize"])
def test_metaimage_sizes(tmp_path: Path, name: str, sizes: str) -> None:
    line = f"{name} = {sizes}".encode()
    path = edited(tmp_path / "a.mha", b"ElementSpacing = 0.5 0.75 3", line, metaimage(tmp_path))
    assert refusal(path) == f"found {name} {sizes}, {SIZES}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Offset = 10 -20 30", "Offset = nan -20 30", "found Offset nan -20 30, allowed: numbers"),
        ("= 1 0 0 0 1 0 0 0 1", "= 1 0 0 0 1 0 0 0 0", "the directions of its axes have no inverse, allowed: three th"),
        ("= 1 0 0 0 1 0 0 0 1", "= nan 0 0 0 1 0 0 0 1", "found TransformMatrix nan 0 0 0 1 0 0 0 1, allowed: numbers"),
        ("DimSize = 5 6 4", "DimSize = 5 6 400", "; the file is damaged, or of another format"),
    ],
)
def test_metaimage_places(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert message in refusal(edited(tmp_path / "a.mha", old.encode(), new.encode(), metaimage(tmp_path)))


DIRECTIONS_LINE = "space directions: (0.5,0,0) (0,0.75,0) (0,0,3)"


@pytest.mark.parametrize(
    "line",
    [
        "space directions: (0,0,0) (0,0.75,0) (0,0,3)",
        "space directions: (nan,0,0) (0,0.75,0) (0,0,3)",
        "space directions: (0.5,0,0) none (0,0,3)",
        "spacings: 0 0.75 3",
        "spacings: -0.5 0.75 3",
        "spacings: nan 0.75 3",
        "spacings: inf 0.75 3",
        "spacings: nan nan nan",
    ],
)
def test_nrrd_sizes(tmp_path: Path, line: str) -> None:
    source = nrrd(tmp_path)
    if line.startswith("spacings"):
        source = source.replace(b"space: left-posterior-superior\n", b"").replace(b"space origin: (10,-20,30)\n", b"")
    path = edited(tmp_path / "a.nrrd", DIRECTIONS_LINE.encode(), line.encode(), source)
    assert (
        refusal(path)
        == f"found {line.replace(': ', ' ').replace('(', '').replace(')', '').replace('none', 'nan')}, {SIZES}"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(10,-20,30)", "(nan,-20,30)", "found space origin nan,-20,30, allowed: numbers"),
        ("(0,0.75,0)", "(0.75,0,0)", "the directions of its axes have no inverse, allowed: three that differ"),
        ("kinds:", 'space units: "ft" "ft" "ft"\nkinds:', "found the units ft, allowed: one of mm, "),
        ("kinds:", 'space units: "mm" "cm" "mm"\nkinds:', "found the units cm, mm, allowed: one of mm, "),
    ],
)
def test_nrrd_places(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert message in refusal(edited(tmp_path / "a.nrrd", old.encode(), new.encode(), nrrd(tmp_path)))


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        *(("um", 1e-3), ("\u00b5m", 1e-3), ("\u03bcm", 1e-3), ("microns", 1e-3), ("Micrometers", 1e-3)),
        *(("MM", 1), ("millimeters", 1), ("millimetre", 1), ("cm", 10), ("Centimetres", 10), ("meters", 1000)),
    ],
)
def test_units_of_nrrd(tmp_path: Path, unit: str, factor: float) -> None:
    units = f'space units: "{unit}" "{unit}" "{unit}"\nkinds:'.encode()
    image = read_image(edited(tmp_path / "a.nrrd", b"kinds:", units, nrrd(tmp_path)))
    expected = read_image(tmp_path / "good.nrrd")
    assert np.allclose(image.affine[:3], expected.affine[:3] * factor)
    assert np.array_equal(image.values, expected.values)


@pytest.mark.parametrize(("unit", "factor"), [("um", 1e-3), ("mm", 1), ("cm", 10), ("?", 1)])
def test_units_of_metaimage(tmp_path: Path, unit: str, factor: float) -> None:
    line = f"DistanceUnits = {unit}\nElementSpacing".encode()
    image = read_image(edited(tmp_path / "a.mha", b"ElementSpacing", line, metaimage(tmp_path)))
    expected = read_image(tmp_path / "good.mha")
    assert np.allclose(image.affine[:3], expected.affine[:3] * factor)
    assert np.array_equal(image.values, expected.values)
    line = b"DistanceUnits = ft\nElementSpacing"
    path = edited(tmp_path / "b.mha", b"ElementSpacing", line, metaimage(tmp_path))
    assert refusal(path) == "found the units ft, allowed: one of mm, um, cm, m"


def test_units_of_nrrds_other_axes(tmp_path: Path) -> None:
    """Seconds along the fourth axis are no length; and names of fields are in any case."""
    times = sitk.JoinSeries([itk_image(DIRECTIONS["LPS"])] * 2)
    sitk.WriteImage(times, tmp_path / "good.nrrd")
    content = (tmp_path / "good.nrrd").read_bytes()
    start = content.index(b"space directions")
    end = content.index(b"\n", start)
    sizes = b'Spacings: 500 750 3000 1\nunits: "um" "um" "um" "s"'
    content = content[:start] + sizes + content[end:]
    content = content.replace(b"domain domain domain domain", b"domain domain domain time")
    for line in (b"space dimension: 4\n", b"space origin: (10,-20,30,0)\n"):
        content = content.replace(line, b"")
    (tmp_path / "a.nrrd").write_bytes(content)
    image = read_image(tmp_path / "a.nrrd")
    assert np.linalg.norm(image.affine[:3, :3], axis=0) == pytest.approx((0.5, 0.75, 3))
    assert image.values.shape == (2, 5, 6, 4)


@pytest.mark.parametrize(
    ("ending", "line"), [("mha", b"ElementSpacing = 0.5 0.75 3\n"), ("nrrd", f"{DIRECTIONS_LINE}\n".encode())]
)
def test_without_sizes_distances_are_in_px(tmp_path: Path, ending: str, line: bytes) -> None:
    source = {"mha": metaimage, "nrrd": nrrd}[ending](tmp_path)
    source = source.replace(b"space: left-posterior-superior\n", b"").replace(b"space origin: (10,-20,30)\n", b"")
    image = read_image(edited(tmp_path / f"a.{ending}", line, b"", source))
    assert image.unit == "px"
    assert np.array_equal(image.values[0], VALUES.transpose(2, 1, 0))
    assert read_image(tmp_path / f"good.{ending}").unit == "mm"


def test_free_text_of_nrrd_is_no_size(tmp_path: Path) -> None:
    path = edited(tmp_path / "a.nrrd", b"kinds:", b"spacings:=none\nspace units:=ft\nkinds:", nrrd(tmp_path))
    assert read_image(path).unit == "mm"


def nifti(path: Path, affine: np.ndarray | None = None, size: float = 1.0, coded: bool = True) -> Path:
    """With the affine as sform, or made of the sizes of voxels; nibabel would mend either in writing."""
    image: Any = nibabel.Nifti1Image(VALUES, np.eye(4))
    content, header = image.to_bytes(), image.header.copy()
    header["vox_offset"], header["sform_code"], header["qform_code"] = 352, 0, int(coded)
    if affine is not None:
        header["sform_code"], header["srow_x"], header["srow_y"], header["srow_z"] = 1, *affine[:3]
    header["pixdim"][2] = size
    path.write_bytes(header.binaryblock + content[348:])
    return path


@pytest.mark.parametrize(
    "rows",
    [
        np.diag([0.0, 1, 1, 1]),
        np.diag([np.nan, 1, 1, 1]),
        np.diag([1e-12, 1, 1, 1]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]),
        np.array([[1.0, 1, 0, 0], [0, 1e-9, 0, 0], [0, 0, 1, 0]]),
        np.array([[1.0, 0, 0, np.nan], [0, 1, 0, 0], [0, 0, 1, 0]]),
    ],
)
def test_nifti_affines(tmp_path: Path, rows: np.ndarray) -> None:
    message = refusal(nifti(tmp_path / "a.nii", rows))
    assert message.startswith("its affine has no inverse: [[")
    assert message.endswith("allowed: sizes of a voxel above 0, along three directions")


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("size", [0.0, -2.0, np.nan, np.inf])
@pytest.mark.parametrize("zipped", [True, False])
def test_nifti_sizes(tmp_path: Path, size: float, coded: bool, zipped: bool) -> None:
    path = nifti(tmp_path / "a.nii", size=size, coded=coded)
    if zipped:
        import gzip

        path = tmp_path / "a.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    assert refusal(path) == f"found the voxel sizes (pixdim) [1.0, {size}, 1.0], allowed: numbers above 0"


def test_sizes_that_nifti_does_not_use(tmp_path: Path) -> None:
    """Beside an sform they say nothing."""
    assert read_image(nifti(tmp_path / "a.nii", np.diag([2.0, 3, 4, 1]), size=0.0)).affine[1, 1] == 3


def series(folder: Path, places: slice = slice(None), **tags: Any) -> Path:
    """A series of which some files have other values of tags; of None they have none."""
    save_series(folder, itk_image(DIRECTIONS["LPS"]))
    for file in sorted(folder.iterdir())[places]:
        content = pydicom.dcmread(file)
        for name, value in tags.items():
            delattr(content, name) if value is None else setattr(content, name, value)
        content.save_as(file)
    return folder


PIXELS = "allowed: two numbers above 0, of rows and of columns"


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [0, 0.5]}, f"found PixelSpacing 0 0.5, {PIXELS}"),
        ({"PixelSpacing": [-1, 0.5]}, f"found PixelSpacing -1 0.5, {PIXELS}"),
        ({"PixelSpacing": [0.5]}, f"found PixelSpacing 0.5, {PIXELS}"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "found ImageOrientationPatient 1 0 0 1 0 0, allowed: "),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "allowed: two unit vectors at a right angle"),
    ],
)
def test_dicom_sizes(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    """Of a series, and of a single file; the process's locale stays as it was."""
    before = locale.setlocale(locale.LC_ALL)
    folder = series(tmp_path / "a", **tags)
    assert message in refusal(folder)
    assert message in refusal(min(folder.iterdir()))
    assert locale.setlocale(locale.LC_ALL) == before


def test_dicom_sizes_that_are_no_numbers(tmp_path: Path) -> None:
    (file, *_) = sorted(series(tmp_path / "a").iterdir())
    edited(file, b".75\\.5", b"nan\\.5", file.read_bytes())
    assert refusal(file) == f"found PixelSpacing nan 0.5, {PIXELS}"


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [1, 1]}, "its slices have pixels of 0.5 x 0.75 and 1 x 1 mm, allowed: one size a series"),
        ({"PixelSpacing": None}, "found a slice without PixelSpacing, allowed: slices that have one"),
        ({"ImagePositionPatient": None}, "found a slice without ImagePositionPatient, allowed: slices that have one"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "its slices are turned against each other, allowed: one"),
        ({"ImagePositionPatient": [10, -20, 33]}, "two slices lie at 33 mm, allowed: one"),
        ({"ImagePositionPatient": [10, -20, 37]}, "slices are 3 mm apart, but 4 mm between 33 and 37 mm: is one missi"),
    ],
)
def test_a_slice_unlike_the_others(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    assert message in refusal(series(tmp_path / "a", slice(2, 3), **tags))


def test_slices_of_two_sizes(tmp_path: Path) -> None:
    folder = series(tmp_path / "a")
    save_series(tmp_path / "b", itk_image(DIRECTIONS["LPS"], VALUES[:, :4]))
    (folder / "1-01.dcm").write_bytes((tmp_path / "b" / "1-01.dcm").read_bytes())
    assert refusal(folder) == "its slices have sizes of 5 x 6 and 5 x 4 pixels, allowed: one size a series"


def test_a_picture_in_dicom_has_distances_in_px(tmp_path: Path) -> None:
    (file, *_) = sorted(series(tmp_path / "a", PixelSpacing=None).iterdir())
    assert read_image(file).unit == "px"


def test_a_tilted_gantry_is_noticed(tmp_path: Path) -> None:
    save_series(tmp_path / "a", itk_image(DIRECTIONS["LPS"]))
    for place, file in enumerate(sorted((tmp_path / "a").iterdir())):
        content = pydicom.dcmread(file)
        content.ImagePositionPatient = [10, -20 + place, 30 + 3 * place]
        content.save_as(file)
    image = read_image(tmp_path / "a")
    assert np.array_equal(image.values[0], VALUES.transpose(2, 1, 0))
    (notice,) = image.notices
    assert notice.startswith("has slices that are shifted by up to 3 mm within their planes")


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha"])
def test_a_file_that_was_cut_off(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(itk_image(DIRECTIONS["LPS"]), path)
    path.write_bytes(path.read_bytes()[:-30])
    refusal(path)
