"""What nnU-Net has beside images and labels: the spacing of TIFF in side files, and folds in another folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.registry import open_dataset
from llm4seg.utils.errors import InputError
from tests import volume_layouts as layouts
from tests.tiny import data_section

SHAPE = (4, 7, 6)  # z, y, x
NAMES = ("a", "b_0001")


def volumes(name: str, shape: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    random = np.random.default_rng([*name.encode()])
    images = [random.integers(1, 999, shape, dtype=np.uint16) for _ in range(2)]
    return images, random.integers(0, 2, shape, dtype=np.uint8)


def write(root: Path, shape: tuple[int, ...] = SHAPE, ending: str = ".tif") -> Path:
    """Two cases of two channels in TIFF."""
    for name in NAMES:
        images, label = volumes(name, shape)
        files = {f"imagesTr/{name}_{channel:04d}": image for channel, image in enumerate(images)}
        for path, values in {**files, f"labelsTr/{name}": label}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / f"{path}{ending}", values, photometric="minisblack")
    about = {"channel_names": {"0": "A", "1": "B"}, "labels": {"background": 0, "cell": 1}, "numTraining": 2}
    (root / "dataset.json").write_text(json.dumps({**about, "file_ending": ending}))
    return root


def put_spacing(root: Path, *spacing: float, names: tuple[str, ...] = NAMES, folder: str = "imagesTr") -> None:
    for name in names:
        (root / folder / f"{name}.json").write_text(json.dumps({"spacing": spacing}))


def opened(root: Path, spatial_dims: int = 3) -> Dataset:
    return open_dataset(data_section(root, spatial_dims, "nnunet"), root.parent / "cache")


def read(root: Path, spatial_dims: int = 3) -> list[RawCase]:
    return list(opened(root, spatial_dims).cases)


def refusal(root: Path, spatial_dims: int = 3) -> str:
    with pytest.raises(InputError) as raised:
        read(root, spatial_dims)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(str(root), "ROOT")


@pytest.mark.parametrize("folders", [["imagesTr"], ["labelsTr"], ["imagesTr", "labelsTr"]])
@pytest.mark.parametrize("ending", [".tif", ".tiff"])
def test_the_spacing_of_volumes(tmp_path: Path, folders: list[str], ending: str) -> None:
    """In the order of the array that tifffile reads: z, y, x."""
    root = write(tmp_path, ending=ending)
    for folder in folders:
        put_spacing(root, 5, 0.3, 0.4, folder=folder)
    dataset = opened(root)
    cases = list(dataset.cases)
    assert (dataset.notices, [case.id for case in cases]) == ((), [*NAMES])
    for case in cases:
        images, label = volumes(case.id, SHAPE)
        assert np.array_equal(np.moveaxis(case.image, -1, 1), images)
        assert np.array_equal(np.moveaxis(case.labels, -1, 0), label)
        assert case.unit == "mm"
        assert case.spacing == pytest.approx((0.3, 0.4, 5))
        assert case.notices == ()
        assert case.geometry is not None
        assert case.geometry.spacing == pytest.approx((0.3, 0.4, 5))
    slices = read(root, 2)
    assert len(slices) == len(NAMES) * SHAPE[0]
    for case in slices:
        assert (case.unit, case.spacing, case.slice_spacing) == ("mm", pytest.approx((0.3, 0.4)), pytest.approx(5))


def test_the_spacing_of_pictures(tmp_path: Path) -> None:
    root = write(tmp_path, SHAPE[1:])
    put_spacing(root, 999, 0.3, 0.4)
    for case in read(root, 2):
        images, label = volumes(case.id, SHAPE[1:])
        assert np.array_equal(case.image, images)
        assert np.array_equal(case.labels, label)
        assert (case.unit, case.spacing) == ("mm", pytest.approx((0.3, 0.4)))


def test_without_side_files_distances_are_in_pixels(tmp_path: Path) -> None:
    root = write(tmp_path)
    said = "{} TIFF images have no side file with their spacing, such as {}.json: their distances are in px"
    assert opened(root).notices == (said.format(2, "a"),)
    assert {(case.unit, case.spacing) for case in read(root)} == {("px", (1.0, 1.0, 1.0))}
    put_spacing(root, 5, 0.3, 0.4, names=("a",))
    assert opened(root).notices == (said.format(1, "b_0001"),)
    assert [case.unit for case in read(root)] == ["mm", "px"]


def test_side_files_of_other_formats_say_nothing(tmp_path: Path) -> None:
    """nnU-Net reads none either: NIfTI has its own spacing."""
    layouts.write_nnunet(tmp_path)
    (folder,) = tmp_path.rglob("imagesTr")
    (folder / "a_001.json").write_text('{"spacing": [9, 9, 9]}')
    (case,) = (case for case in read(tmp_path) if case.id == "a_001")
    assert case.spacing == pytest.approx((0.9, 0.8, 3.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON: "),
        ("[5, 1, 1]", "found [5, 1, 1], allowed: "),
        ('{"spacing": [1, 1]}', "found {'spacing': [1, 1]}, allowed: "),
        ('{"spacing": [1, 1, 0]}', "found {'spacing': [1, 1, 0]}, allowed: "),
        ('{"spacing": [1, 1, NaN]}', "found {'spacing': [1, 1, nan]}, allowed: "),
        ('{"spacing": [1, 1, "1"]}', "found {'spacing': [1, 1, '1']}, allowed: "),
        ('{"spacing": [1, 1, true]}', "found {'spacing': [1, 1, True]}, allowed: "),
        ('{"spacing": 1}', "found {'spacing': 1}, allowed: "),
    ],
)
def test_a_side_file_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    root = write(tmp_path)
    put_spacing(root, 1, 1, 1)
    (root / "imagesTr/b_0001.json").write_text(text)
    found = refusal(root)
    assert found.startswith(f"ROOT/imagesTr/b_0001.json: {message}")
    if "allowed" in message:
        assert found.endswith('allowed: {"spacing": [z, y, x]}, three numbers above 0, in mm')


def test_spacings_of_image_and_label_agree(tmp_path: Path) -> None:
    root = write(tmp_path)
    put_spacing(root, 5, 0.3, 0.4)
    put_spacing(root, 5, 0.3, 0.4000001, folder="labelsTr")
    assert read(root)[0].spacing == pytest.approx((0.3, 0.4, 5))
    put_spacing(root, 5, 0.4, 0.3, folder="labelsTr")
    assert refusal(root) == (
        "ROOT/labelsTr/a.json: found the spacing [5.0, 0.4, 0.3], allowed: [5.0, 0.3, 0.4], as in ROOT/imagesTr/a.json"
    )


def test_folds_elsewhere_are_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not read, as DVC sees only what is in data.root; this machine's paths are in no manifest."""
    layouts.write_nnunet(tmp_path / "raw")
    (splits,) = tmp_path.rglob("splits_final.json")
    elsewhere = tmp_path / "preprocessed" / splits.parent.name / splits.name
    elsewhere.parent.mkdir(parents=True)
    shutil.copy(splits, elsewhere)
    (before,) = opened(tmp_path / "raw").notices
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    assert opened(tmp_path / "raw").notices == (before,)
    splits.unlink()
    dataset = opened(tmp_path / "raw")
    assert dataset.official is None
    assert dataset.notices == (
        "the folds in $nnUNet_preprocessed/Dataset123_Heart/splits_final.json are not read: copy it beside "
        "dataset.json to split by them",
        before,
    )
    elsewhere.unlink()
    assert opened(tmp_path / "raw").notices == (before,)
