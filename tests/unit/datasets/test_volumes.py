"""Published sets of volumes in their owners' layouts: every case voxel for voxel, and what a copy of them can lack."""

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm4seg.config import Config
from llm4seg.config.schema import SECTIONS_ALONE
from llm4seg.data.prepared import SplitLists
from llm4seg.data.rules import split_by_rule
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from llm4seg.utils.errors import InputError
from tests import volume_layouts as layouts
from tests.layouts import save as save_picture
from tests.tiny import PARAMS, data_section
from tests.volume_layouts import AFFINE, SHAPE, Truth


def opened(root: Path, dataset: str, spatial_dims: int = 3, classes: dict[str, Any] | None = None) -> Dataset:
    return open_dataset(data_section(root, spatial_dims, dataset, classes=classes), root.parent / "cache")


def cases_of(dataset: Dataset) -> dict[str, RawCase]:
    return {case.id: case for case in dataset.cases}


def check(cases: dict[str, RawCase], truth: Truth) -> None:
    """The cases are these, in order, equal in every voxel, whatever the orientations of their files."""
    assert list(cases) == list(truth)
    for name, (image, labels) in truth.items():
        case = cases[name]
        assert np.array_equal(case.image, layouts.as_seen(image)), name
        assert np.array_equal(case.labels, layouts.as_seen(labels)), name
        assert case.labels.dtype == np.uint8
        assert case.unit == "mm"
        assert np.allclose(case.spacing, (0.9, 0.8, 3.0))
        assert case.geometry is not None
        assert case.notices == ()
        assert not case.source.startswith("/")


def refusal(root: Path, dataset: str, spatial_dims: int = 3, classes: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as raised:
        list(opened(root, dataset, spatial_dims, classes).cases)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(f"{root}", "ROOT")


def edit(root: Path, **changes: Any) -> None:
    """Change entries of dataset.json; those of None are removed."""
    (path,) = root.rglob("dataset.json")
    values = {**json.loads(path.read_text()), **changes}
    layouts.write_json(path, **{key: value for key, value in values.items() if value is not None})


@pytest.mark.parametrize("ending", [None, "zip", "tar"])
@pytest.mark.parametrize("dataset", layouts.WRITERS)
def test_every_voxel(tmp_path: Path, dataset: str, ending: str | None) -> None:
    raw = tmp_path / "raw"
    truth = layouts.WRITERS[dataset](raw)
    root = Path(shutil.make_archive(str(tmp_path / "downloaded"), ending, raw)) if ending else raw
    found = opened(root, dataset)
    assert found.total == len(truth)
    check(cases_of(found), truth)


@pytest.mark.parametrize("dataset", layouts.WRITERS)
def test_slices_of_every_volume(tmp_path: Path, dataset: str) -> None:
    truth = layouts.WRITERS[dataset](tmp_path)
    found = opened(tmp_path, dataset, spatial_dims=2)
    assert found.total is None
    for case in found.cases:
        assert case.volume is not None
        assert case.volume_slices == SHAPE[2]
        image, labels = (layouts.as_seen(one)[..., case.position] for one in truth[case.volume])
        assert np.array_equal(case.image, image)
        assert np.array_equal(case.labels, labels)


def test_decathlon(tmp_path: Path) -> None:
    truth = layouts.write_decathlon(tmp_path)
    unlisted = tmp_path / "Task05_Prostate" / "imagesTr" / "prostate_99.nii.gz"
    layouts.save(unlisted, truth["prostate_00"][0][0], "RAS")
    dataset = opened(tmp_path, "decathlon")
    assert (dataset.name, dataset.license, dataset.official) == ("PROSTATE", "CC-BY-SA 4.0", None)
    assert dataset.classes == ("PZ", "transition_zone")
    assert dataset.notices == (
        "found 4 cases, published are 32",
        "imagesTr: 1 files are left out, as dataset.json does not list them, such as prostate_99.nii.gz",
        "imagesTs: 1 files are left out, as they come without labels",
    )
    chosen = opened(tmp_path, "decathlon", classes={"zone": ["transition_zone"]})
    check(cases_of(chosen), {name: (image, labels == 2) for name, (image, labels) in truth.items()})


def test_decathlons_list_of_validation_is_a_split(tmp_path: Path) -> None:
    truth = layouts.write_decathlon(tmp_path)
    (path,) = tmp_path.rglob("dataset.json")
    entries = json.loads(path.read_text())["training"]
    edit(tmp_path, training=entries[1:], validation=entries[:1])
    names = list(truth)
    dataset = opened(tmp_path, "decathlon")
    assert dataset.official == SplitLists("dataset.json", {"train": tuple(names[1:]), "val": tuple(names[:1])})
    assert cases_of(dataset).keys() == truth.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": {"0": "T2"}}, "prostate_00.nii.gz: found 2 channels, allowed: 1 a case"),
        ({"labels": None}, 'found labels None, allowed: {"0": "background", "1": name} or the reverse'),
        (
            {"labels": {"0": "background"}},
            "found the labels {'0': 'background'}, allowed: 1 to 254 classes that differ",
        ),
        ({"labels": {"1": "a b", "2": "a_b"}}, "allowed: 1 to 254 classes that differ, but for 0"),
        ({"labels": {"1": "background"}}, "allowed: 1 to 254 classes that differ, but for 0"),
        ({"labels": {"1": "a", "01": "b"}}, "found the label 'b': 1, allowed: a name and its own whole number"),
        ({"labels": {"one": "a"}}, "found the label 'a': 'one', allowed: a name and its own whole number"),
        ({"labels": {"1": "PZ"}}, "unknown mask value 2; allowed: 0, 1 (0 is background, the others are in data.cl"),
        (
            {"training": None},
            "dataset.json: found no cases in training, allowed: one or more, each an image and its lab",
        ),
        ({"training": ["./imagesTr/x.nii.gz"]}, "found './imagesTr/x.nii.gz' in training, allowed: an image and its l"),
        ({"training": [{"image": "./imagesTr/x"}]}, "in training, allowed: an image and its label, both paths"),
        ({"training": [{"image": "a", "label": "../b"}]}, "in training, allowed: paths within its folder"),
        (
            {"training": [{"image": "imagesTr/x.nii.gz", "label": "labelsTr/x.nii.gz"}]},
            "imagesTr/x.nii.gz: no such file, which ROOT/Task05_Prostate/dataset.json lists (2 such files)",
        ),
    ],
)
def test_a_dataset_json_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    layouts.write_decathlon(tmp_path)
    edit(tmp_path, **changes)
    assert message in refusal(tmp_path, "decathlon")


@pytest.mark.parametrize("form", ["RawData", "Training", "imagesTr"])
def test_btcv(tmp_path: Path, form: str) -> None:
    truth = layouts.write_btcv(tmp_path, form)
    dataset = opened(tmp_path, "btcv")
    assert dataset.notices == {
        "RawData": ("Testing/img: 1 files are left out, as they come without labels",),
        "Training": (),
        "imagesTr": ("imagesTs: 1 files are left out, as they come without labels",),
    }.get(form)
    check(cases_of(dataset), truth)
    assert (dataset.classes[1], dataset.classes[12]) == ("right_kidney", "left_adrenal_gland")
    assert dataset.official is not None
    assert {part: len(ids) for part, ids in dataset.official.parts.items()} == {"train": 24, "val": 6}
    assert {one for ids in dataset.official.parts.values() for one in ids} == truth.keys()
    assert dataset.official.parts["val"][0] == "0035"


def test_btcvs_own_lists_are_its_split(tmp_path: Path) -> None:
    layouts.write_btcv(tmp_path, "imagesTr")
    paths = [{"image": f"imagesTr/img{n:04d}.nii.gz", "label": f"labelsTr/label{n:04d}.nii.gz"} for n in (1, 2, 40)]
    lists = {"training": paths[:2], "validation": paths[2:], "test": ["imagesTs/img0061.nii.gz"], "numTraining": 80}
    layouts.write_json(tmp_path / "dataset_0.json", **lists)
    expected = SplitLists("dataset_0.json", {"train": ("0001", "0002"), "val": ("0040",)})
    assert opened(tmp_path, "btcv").official == expected


def test_nnunet(tmp_path: Path) -> None:
    truth = layouts.write_nnunet(tmp_path)
    dataset = opened(tmp_path, "nnunet")
    assert (dataset.name, dataset.license, dataset.citation) == ("Dataset123_Heart", "CC0", "none")
    assert dataset.classes == ("wall", "left_ventricle")
    assert dataset.notices == ("imagesTs: 1 files are left out, as they come without labels",)
    assert dataset.official is not None
    assert dataset.official.source == "splits_final.json"
    assert dataset.official.folds[3] == {"train": tuple(truth)[:3], "val": (tuple(truth)[3],)}


def test_nnunets_folds_split_the_prepared_volumes(tmp_path: Path) -> None:
    truth = layouts.write_nnunet(tmp_path / "raw")
    section = data_section(tmp_path / "raw", 3, "nnunet")
    prepared = write_prepared(open_dataset(section, tmp_path), section, tmp_path / "prepared")
    config = Config.load(PARAMS).override({"split.rule": "official", "split.fold": 1}, SECTIONS_ALONE)
    split = split_by_rule(prepared, config.split)
    assert split.test == tuple(truth)[1:2]
    assert sorted((*split.train, *split.val, *split.test)) == sorted(truth)


def test_nnunet_v1(tmp_path: Path) -> None:
    """Its dataset.json is the Decathlon's, its files end in a channel's number; each dataset knows the other."""
    truth = layouts.write_nnunet(tmp_path / "v1")
    paths = [{part: f"./{part}sTr/{name}.nii.gz" for part in ("image", "label")} for name in truth]
    labels = {"0": "background", "1": "wall", "2": "ventricle"}
    modality = {"0": "T1", "1": "T2"}
    edit(tmp_path / "v1", channel_names=None, file_ending=None, modality=modality, labels=labels, training=paths)
    dataset = opened(tmp_path / "v1", "nnunet")
    assert dataset.classes == ("wall", "ventricle")
    check(cases_of(dataset), truth)
    assert refusal(tmp_path / "v1", "decathlon") == (
        "ROOT/nnUNet_raw/Dataset123_Heart: looks like data.dataset: nnunet, whose channels end in _0000"
    )
    layouts.write_decathlon(tmp_path / "msd")
    assert refusal(tmp_path / "msd", "nnunet") == (
        "ROOT/Task05_Prostate: looks like data.dataset: decathlon, as no image ends in _0000.nii.gz"
    )


def test_nnunet_lists_files_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to dataset.json or by an environment variable; folders outside data.root stand in no manifest."""
    truth = layouts.write_nnunet(tmp_path / "other")
    raw = tmp_path / "other" / "nnUNet_raw" / "Dataset123_Heart"
    monkeypatch.setenv("HERE", str(raw))
    folder = tmp_path / "raw" / "Dataset124_Listed"
    folder.mkdir(parents=True)
    listed = {}
    for name in truth:
        file, relative = unicodedata.normalize("NFD", name), f"../../other/nnUNet_raw/{raw.name}/imagesTr"
        images = [f"$HERE/imagesTr/{file}_0000.nii.gz", f"{relative}/{file}_0001.nii.gz"]
        listed[name] = {"images": images, "label": f"${{HERE}}/labelsTr/{file}.nii.gz"}
    shutil.copy(raw / "dataset.json", folder)
    edit(tmp_path / "raw", dataset=listed)
    dataset = opened(tmp_path / "raw", "nnunet")
    assert dataset.notices == ("dataset.json lists 12 files outside data.root, of whose changes DVC knows nothing",)
    check(cases_of(dataset), truth)
    monkeypatch.delenv("HERE")
    assert "/$HERE/imagesTr/BRATS_001_0000_0000.nii.gz: no such file, which ROOT/" in refusal(
        tmp_path / "raw", "nnunet"
    )
    edit(tmp_path / "raw", dataset={"a": {"images": ["x"], "label": "y"}})
    assert refusal(tmp_path / "raw", "nnunet").endswith(": found 1 images of a, allowed: 2, one a channel")
    edit(tmp_path / "raw", dataset={"a": {"images": ["x", "z"]}})
    assert "in dataset, allowed: images, a list of paths, and label, a path" in refusal(tmp_path / "raw", "nnunet")


def test_nnunet_of_colors(tmp_path: Path) -> None:
    """One PNG holds all three channels, another data set has one for each."""
    root = tmp_path / "Dataset001_Skin"
    random = np.random.default_rng(0)
    colors, mask = random.integers(0, 255, (9, 8, 3), dtype=np.uint8), random.integers(0, 2, (9, 8), dtype=np.uint8)
    save_picture(root / "imagesTr" / "a_0000.png", colors)
    save_picture(root / "labelsTr" / "a.png", mask)
    about = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "lesion": 1}}
    layouts.write_json(root / "dataset.json", **about, numTraining=1, file_ending=".png")
    together = cases_of(opened(tmp_path, "nnunet", spatial_dims=2))["a"]
    save_picture(root / "imagesTr" / "a_0000.png", colors[..., 0])
    assert refusal(tmp_path, "nnunet", 2).endswith("a_0000.png: found 1 channels, allowed: 3 a case")
    for channel in range(3):
        save_picture(root / "imagesTr" / f"a_{channel:04d}.png", colors[..., channel])
    apart = cases_of(opened(tmp_path, "nnunet", spatial_dims=2))["a"]
    for case in (together, apart):
        assert np.array_equal(case.image, np.moveaxis(colors, -1, 0))
        assert np.array_equal(case.labels, mask)
    assert refusal(tmp_path, "nnunet").endswith("a_0000.png: is 2-D, but data.spatial_dims is 3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 2}},
            "number; of regions, with regions_class_order",
        ),
        ({"regions_class_order": 1}, "found regions_class_order 1, allowed: a list of labels, one a region"),
        ({"regions_class_order": [2]}, "found [2], allowed: a value of each of left_ventricle, wall, in this order"),
        (
            {"labels": {"background": 0, "core": 2, "whole": [1, 2]}, "regions_class_order": [2, 1]},
            "a pixel of core and whole would become one of whole, as later regions overwrite earlier ones",
        ),
        (
            {"labels": {"background": 0, "a": 1, "b": [2]}},
            "found the label 'b': [2], allowed: a name and its own whole",
        ),
        ({"labels": {"background": 0, "ignore": 2}}, "allowed: 1 to 254 classes that differ, but for 0"),
        ({"labels": {"background": 0, "a": "x"}}, "found the label 'a': 'x', allowed: a name and its own whole number"),
        ({"channel_names": None}, "found channel_names None, allowed: names as in"),
        ({"file_ending": 3}, 'found file_ending 3, allowed: one such as ".nii.gz"'),
        ({"file_ending": ".nrrd"}, "imagesTr: found no image, allowed: names such as case_0000.nrrd"),
        (
            {"channel_names": {"0": "T1"}},
            "found BRATS_001_0000_0000.nii.gz, BRATS_001_0000_0001.nii.gz, allowed: BRATS_0",
        ),
    ],
)
def test_what_nnunets_dataset_json_may_not_have(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    layouts.write_nnunet(tmp_path)
    edit(tmp_path, **changes)
    assert message in refusal(tmp_path, "nnunet")


def test_channels_of_another_size_or_place(tmp_path: Path) -> None:
    layouts.write_nnunet(tmp_path)
    (second,) = tmp_path.rglob("a_001_0001.nii.gz")
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    layouts.save(second, np.zeros(SHAPE, np.int16), "RAS", moved)
    assert "a_001_0001.nii.gz: its affine [[0.8, " in refusal(tmp_path, "nnunet")
    layouts.save(second, np.zeros((7, 6, 4), np.int16), "RAS")
    assert "a_001_0001.nii.gz: size (7, 6, 4) differs from (7, 6, 5) of ROOT/" in refusal(tmp_path, "nnunet")
    second.unlink()
    assert "imagesTr: found a_001_0000.nii.gz, allowed: a_001_0000.nii.gz, a_001_0001.nii.gz, as ROOT/" in refusal(
        tmp_path, "nnunet"
    )


def test_acdc(tmp_path: Path) -> None:
    truth = layouts.write_acdc(tmp_path)
    dataset = opened(tmp_path, "acdc")
    assert dataset.notices == (
        "found 4 volumes of training, published are 200",
        "found 2 volumes of testing, published are 100",
    )
    assert dataset.official == SplitLists("its folders", {"train": tuple(truth)[:4], "test": tuple(truth)[4:]})
    assert [case.group for case in dataset.cases] == [name[:10] for name in truth]
    for path in tmp_path.rglob("patient101*_gt.nii.gz"):
        path.unlink()
    dataset = opened(tmp_path, "acdc")
    assert dataset.notices[1] == "testing: 2 images are left out, as they come without labels"
    assert (dataset.official, dataset.total) == (None, 4)
    shutil.rmtree(next(tmp_path.rglob("testing")))
    dataset = opened(tmp_path, "acdc")
    assert dataset.notices[1] == "testing: there are none, so there is no official split"
    assert (dataset.official, dataset.total) == (None, 4)


@pytest.mark.parametrize("dataset", ["acdc", "btcv", "nnunet"])
def test_a_volume_without_labels_is_named(tmp_path: Path, dataset: str) -> None:
    layouts.WRITERS[dataset](tmp_path)
    pattern = {"acdc": "patient001*_gt*", "btcv": "label0010*", "nnunet": "a_001.nii.gz"}[dataset]
    label = min(tmp_path.rglob(pattern))
    label.unlink()
    assert "an image without a mask in ROOT" in refusal(tmp_path, dataset)
    layouts.save(label, np.zeros((3, 3, 3), np.uint8), "RAS")
    assert "size (3, 3, 3) differs from " in refusal(tmp_path, dataset)


def test_another_layout_is_named(tmp_path: Path) -> None:
    layouts.write_acdc(tmp_path / "acdc")
    layouts.write_decathlon(tmp_path / "msd")
    assert "ROOT: looks like data.dataset: acdc, allowed for btcv: a folder with Training/img and Training/label" in (
        refusal(tmp_path / "acdc", "btcv")
    )
    assert "found no image of BTCV, allowed: names such as img0001.nii.gz" in refusal(tmp_path / "msd", "btcv")
