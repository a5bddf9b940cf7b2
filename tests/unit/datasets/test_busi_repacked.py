"""BUSI as CMUNeXt and others repacked it: images/, masks/0/ and lists, and what it is not taken for."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llm4seg.config import Config
from llm4seg.config.schema import SECTIONS_ALONE
from llm4seg.data.prepared import SplitLists
from llm4seg.data.rules import split_by_rule
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from llm4seg.utils.errors import InputError
from tests import layouts
from tests.tiny import PARAMS, data_section


def write_repacked(root: Path, ending: str = "") -> layouts.Truth:
    """The lesions of the published form's miniature, their masks merged, with names of the other form."""
    truth = {name: mask for name, mask in layouts.write_busi(root / "as published").items() if "normal" not in name}
    for name, mask in truth.items():
        (file,) = (root / "as published").rglob(f"{name}.png")
        (root / "busi/images").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / "busi/images")
        layouts.save(root / f"busi/masks/0/{name}{ending}.png", mask)
    shutil.rmtree(root / "as published")
    layouts.litter(root / "busi", root / "busi/images", root / "busi/masks", root / "busi/masks/0")
    return truth


def opened(root: Path, dataset: str = "busi", classes: dict[str, Any] | None = None) -> Dataset:
    return open_dataset(data_section(root, dataset=dataset, classes=classes), root.parent / "cache")


def refusal(root: Path, dataset: str) -> str:
    with pytest.raises(InputError) as raised:
        opened(root, dataset)
    return str(raised.value).replace(str(root), "ROOT")


@pytest.mark.parametrize("ending", ["", "_mask"])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_pixel(tmp_path: Path, ending: str, zipped: bool) -> None:
    truth, root = write_repacked(tmp_path / "raw", ending), tmp_path / "raw"
    root = Path(shutil.make_archive(str(tmp_path / "busi"), "zip", root)) if zipped else root
    dataset = opened(root)
    assert (dataset.classes, dataset.total, dataset.official) == (("lesion",), len(truth), None)
    assert dataset.notices == (
        "found 6 benign images, published are 437",
        "found 6 malignant images, published are 210",
    )
    cases = {case.id: case for case in dataset.cases}
    assert cases.keys() == truth.keys()
    for name, case in cases.items():
        assert np.array_equal(case.labels, truth[name])
        file = Image.open(tmp_path / "raw/busi/images" / f"{name}.png").convert("RGB")
        assert np.array_equal(case.image, np.moveaxis(np.asarray(file), -1, 0))
    assert cases["malignant (2)"].group == "benign (2)"  # they look alike
    kinds = opened(root, classes={"malignant": ["malignant"], "benign": ["benign"]})
    for case in kinds.cases:
        assert np.array_equal(case.labels, truth[case.id] * (2 if "benign" in case.id else 1))


def test_malignant_images_alone(tmp_path: Path) -> None:
    truth = write_repacked(tmp_path)
    for path in tmp_path.rglob("benign*.png"):
        path.unlink()
    dataset = opened(tmp_path, classes={"tumor": ["malignant"]})
    assert [case.id for case in dataset.cases] == [name for name in truth if "malignant" in name]


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    write_repacked(tmp_path)
    (tmp_path / "busi/masks/0/benign (2).png").unlink()
    assert refusal(tmp_path, "busi") == "ROOT/busi/images/benign (2).png: an image without a mask in ROOT/busi"


def test_lists_of_train_and_val(tmp_path: Path) -> None:
    names = sorted(write_repacked(tmp_path / "raw"))
    for part, ids in {"train": names[4:], "val": names[:4]}.items():
        (tmp_path / "raw/busi" / f"{part}.txt").write_text("\n".join(ids) + "\n")
    (tmp_path / "raw/busi/constraint.txt").write_text("no list")
    expected = {"train": tuple(names[4:]), "val": tuple(names[:4])}
    assert opened(tmp_path / "raw").official == SplitLists("train.txt, val.txt", expected)
    section = data_section(tmp_path / "raw", dataset="busi")
    prepared = write_prepared(opened(tmp_path / "raw"), section, tmp_path / "prepared")
    config = Config.load(PARAMS).override({"split.rule": "official"}, SECTIONS_ALONE)
    split = split_by_rule(prepared, config.split)
    assert sorted(split.test) == names[:4]
    assert sorted((*split.train, *split.val)) == names[4:]


@pytest.mark.parametrize("published", [False, True])
def test_lists_follow_the_classes(tmp_path: Path, published: bool) -> None:
    """Other kinds and normal images are left out of them; what is no image at all is not."""
    root = tmp_path / "raw"
    names = sorted(layouts.write_busi(root) if published else write_repacked(root))
    names += ["normal (133)"]  # which copies mostly have not
    (root / "train.txt").write_text("\n".join(names[2:]))
    (root / "val.txt").write_text("\n".join(names[:2] + names[-1:] + ["malignant (1)", "benign (438)"]))
    for classes, kinds in (({"malignant": ["malignant"]}, ("malignant",)), (None, ("benign", "malignant"))):
        official = opened(root, classes=classes).official
        assert official is not None
        in_use = [name for name in names if name.startswith(kinds)]
        assert official.parts["train"] == tuple(name for name in names[2:] if name in in_use)
        extra = ["benign (438)"]  # of which there is none, whatever the classes
        val = [*names[:2], "malignant (1)"] if len(kinds) > 1 else ["malignant (1)"]
        assert official.parts["val"] == (*val, *extra)


def test_numbered_lists_are_folds(tmp_path: Path) -> None:
    """In the order of their numbers, of which 10 comes after 2; also of the published form, and beside its folder."""
    names = sorted(write_repacked(tmp_path))
    expected = []
    for number in (2, 10, 1):
        train, val = names[number:], names[:number]
        (tmp_path / f"busi_train{number}.txt").write_text("\n".join(train))
        (tmp_path / f"busi_val{number}.txt").write_text("\n".join(val))
        expected.append({"train": tuple(train), "val": tuple(val)})
    folds = (expected[2], expected[0], expected[1])
    lists = SplitLists("busi_train1.txt, ..., busi_val2.txt", {}, folds)
    assert opened(tmp_path).official == lists
    shutil.rmtree(tmp_path / "busi")
    layouts.write_busi(tmp_path)
    assert opened(tmp_path).official == lists


def test_what_the_folders_are_taken_for(tmp_path: Path) -> None:
    """Kvasir-SEG and a user's own folder have images/ and masks/, too; other repacked data sets masks/0/."""
    write_repacked(tmp_path / "busi")
    layouts.write_kvasir(tmp_path / "kvasir")
    other = tmp_path / "other" / "isic18"
    for path in ("images/ISIC_1.png", "masks/0/ISIC_1.png"):
        layouts.save(other / path, layouts.disk(1, (30, 30)))
    assert refusal(tmp_path / "busi", "kvasir-seg").startswith(
        "ROOT: looks like data.dataset: busi, allowed for kvasir-"
    )
    assert refusal(tmp_path / "busi", "tnscui").startswith("ROOT: looks like data.dataset: busi, allowed for tnscui: ")
    for dataset in ("busi", "tnscui"):
        assert "ROOT: looks like data.dataset: kvasir-seg or folder, a" in refusal(tmp_path / "kvasir", dataset)
        assert "ROOT: looks like data.dataset: folder, allowed for " in refusal(tmp_path / "other", dataset)
    assert opened(tmp_path / "kvasir", "kvasir-seg").total == 8
