"""Regions that overlap and pixels that are ignored, from the files to the prepared data."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from llm4seg.utils.errors import InputError
from tests import volume_layouts as layouts
from tests.tiny import data_section

NESTED = LabelScheme(("whole", "cavity"), ((1, 2), (2,)), (1, 2))


def prepared(root: Path, dataset: str, **changes: Any) -> Prepared:
    data = data_section(root / "raw", 2, dataset, **changes)
    return write_prepared(open_dataset(data, root / "cache"), data, root / "prepared")


def check(data: Prepared, expected: dict[str, np.ndarray]) -> None:
    """Every slice's labels are these, and every class's pixels are counted, but for ignored ones."""
    assert {case.volume for case in data.cases.values()} == set(expected)
    for case in data.cases.values():
        labels = layouts.as_seen(expected[str(case.volume)])[..., case.position]
        assert np.array_equal(data.original(case.id)[1].numpy(), labels)
        assert list(case.pixels.values()) == [int(((labels == 1) | (labels == 2)).sum()), int((labels == 2).sum())]


def test_nnunets_regions_and_ignore_label(tmp_path: Path) -> None:
    """As nnU-Net: regions in the order of the file's keys, pixels of the ignore label out of every count."""
    labels = {"background": 0, "whole": [1, 2], "ignore": 3, "cavity": 2}
    truth = layouts.write_nnunet(tmp_path / "raw", largest=3, labels=labels, regions_class_order=[1, 2])
    data = prepared(tmp_path, dataset="nnunet")
    assert data.scheme == LabelScheme(NESTED.classes, NESTED.regions, NESTED.regions_class_order, ignore=True)
    check(data, {name: np.where(values == 3, IGNORE, values) for name, (_, values) in truth.items()})


def test_nnunets_ignore_label_beside_classes(tmp_path: Path) -> None:
    labels = {"background": 0, "wall": 1, "cavity": 2, "ignore": 3}
    layouts.write_nnunet(tmp_path / "raw", largest=3, labels=labels)
    assert prepared(tmp_path, dataset="nnunet").scheme == LabelScheme(("wall", "cavity"), ignore=True)


def test_regions_of_a_data_sets_own_classes(tmp_path: Path) -> None:
    truth = layouts.write_nnunet(tmp_path / "raw")
    regions = {"whole": ["wall", "left_ventricle"], "cavity": ["left_ventricle"]}
    data = prepared(tmp_path, dataset="nnunet", classes=regions, regions_class_order=["wall", "left_ventricle"])
    assert data.scheme == NESTED
    check(data, {name: labels for name, (_, labels) in truth.items()})


def test_a_class_of_the_data_set_can_be_ignored(tmp_path: Path) -> None:
    truth = layouts.write_nnunet(tmp_path / "raw")
    data = prepared(tmp_path, dataset="nnunet", classes={"lumen": ["left_ventricle"], "ignore": ["wall"]})
    assert data.scheme == LabelScheme(("lumen",), ignore=True)
    for case in data.cases.values():
        labels = layouts.as_seen(truth[str(case.volume)][1])[..., case.position]
        assert np.array_equal(data.original(case.id)[1].numpy(), np.array([0, IGNORE, 1])[labels])


def test_what_a_data_set_ignores_stays_so_among_chosen_classes(tmp_path: Path) -> None:
    labels = {"background": 0, "wall": 1, "cavity": 2, "ignore": 3}
    truth = layouts.write_nnunet(tmp_path / "raw", largest=3, labels=labels)
    data = prepared(tmp_path, dataset="nnunet", classes={"lumen": ["cavity"]})
    assert data.scheme == LabelScheme(("lumen",), ignore=True)
    for case in data.cases.values():
        values = layouts.as_seen(truth[str(case.volume)][1])[..., case.position]
        assert np.array_equal(data.original(case.id)[1].numpy(), np.array([0, 0, 1, IGNORE])[values])


def test_regions_of_a_folders_mask_values(tmp_path: Path) -> None:
    """Values of any kind become labels from 1 on, in their order; 9 is ignored."""
    values = np.random.default_rng(0).choice([0, 4, 7, 9], (12, 12, 3)).astype(np.uint8)
    for folder, array in (("images", values + np.uint8(20)), ("masks", values)):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1, 4, 1])), tmp_path / "raw" / folder / "a.nii.gz")
    classes = {"whole": [4, 7], "cavity": [7], "ignore": [9]}
    data = prepared(tmp_path, dataset="folder", classes=classes, regions_class_order=[4, 7])
    check(data, {"a": np.select([values == 4, values == 7, values == 9], [1, 2, IGNORE], 0)})


def test_regions_of_regions_are_refused(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "cavity": 2}
    layouts.write_nnunet(tmp_path / "raw", labels=labels, regions_class_order=[1, 2])
    with pytest.raises(InputError, match=r"data\.classes: found lesion, allowed: null, as .* has regions"):
        prepared(tmp_path, dataset="nnunet", classes={"lesion": ["whole"]})


def test_a_region_of_several_labels_has_no_counterpart(tmp_path: Path) -> None:
    layouts.write_nnunet(tmp_path / "raw")
    regions = {"whole": ["wall", "left_ventricle"], "cavity": ["left_ventricle"]}
    order = ["wall", "left_ventricle"]
    with pytest.raises(InputError, match=r"data\.paired: found whole, a region of several labels, allowed: classes of"):
        prepared(tmp_path, dataset="nnunet", classes=regions, regions_class_order=order, paired=[["whole", "cavity"]])


def test_an_order_that_loses_a_region_is_refused(tmp_path: Path) -> None:
    layouts.write_nnunet(tmp_path / "raw")
    regions = {"cavity": ["left_ventricle"], "whole": ["wall", "left_ventricle"]}
    with pytest.raises(InputError, match=r"regions_class_order: found \[.*\]: a pixel of cavity and whole would"):
        prepared(tmp_path, dataset="nnunet", classes=regions, regions_class_order=["left_ventricle", "wall"])
