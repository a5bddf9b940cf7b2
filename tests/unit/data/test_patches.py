"""Patches of volumes: where they lie, what they hold, and that nothing but (seed, epoch, sample) decides it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm4seg.config import Config
from llm4seg.config.schema import Patch
from llm4seg.data.intensity import Intensity
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.patches import load_patches, patch_start
from llm4seg.data.prepared import Prepared
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.writer import write_prepared
from llm4seg.utils.errors import InputError
from tests.finished_run import raw_case, write_cases
from tests.lesion_volumes import VOLUMES
from tests.tiny import tiny_config

SIZE = (8, 8, 4)
SECTION = Patch(size=SIZE, per_case=4, foreground="voxel", share=1.0)
UNIT = Intensity("unit")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path).override(VOLUMES | {"data.spacing": [1, 1, 1]})


def volume(name: str, shape: tuple[int, ...], boxes: dict[int, tuple[int, ...]], **more: Any) -> Any:
    """A volume with labeled boxes of two voxels a side, a label's low corner each; every voxel has its own value."""
    labels = np.zeros(shape, np.uint8)
    for label, corner in boxes.items():
        labels[tuple(slice(low, low + 2) for low in corner)] = label
    image = (1 + np.arange(labels.size, dtype=np.int32)).reshape(shape)[None]
    return raw_case(name, labels, image, **more)


@pytest.fixture
def data(config: Config) -> Prepared:
    cases = [
        volume("wide", (30, 20, 12), {1: (0, 0, 0), 2: (14, 9, 5)}),
        volume("small", (5, 20, 3), {1: (2, 10, 1)}),
        volume("empty", (30, 20, 12), {}),
    ]
    return write_cases(config, cases, ("a", "b")).for_network(SIZE, UNIT)


def starts(data: Prepared, case: str, section: Patch, count: int = 300) -> np.ndarray:
    return np.array([patch_start(data, case, section, np.random.default_rng([0, 0, k])) for k in range(count)])


def holds(data: Prepared, case: str, start: np.ndarray, label: int) -> bool:
    return bool((data.patch(case, start)[1] == label).any())


def test_patches_around_labeled_voxels_hold_some_and_stay_inside(data: Prepared) -> None:
    found = starts(data, "wide", SECTION)
    assert found.min(axis=0).tolist() == [0, 0, 0]  # a voxel at the corner: moved inside
    assert (found.max(axis=0) <= np.array([30, 20, 12]) - SIZE).all()
    assert all(holds(data, "wide", start, 1) or holds(data, "wide", start, 2) for start in found)


def test_other_patches_lie_anywhere(data: Prepared) -> None:
    """All places as likely, the last one, too; so they do where nothing is labeled."""
    for section, case in ((SECTION.model_copy(update={"share": 0.0}), "wide"), (SECTION, "empty")):
        found = starts(data, case, section, 2000)
        for axis, (side, length) in enumerate(zip((30, 20, 12), SIZE, strict=True)):
            counts = np.bincount(found[:, axis], minlength=side - length + 1)
            assert len(counts) == side - length + 1
            assert counts.min() > 0.5 * counts.mean()
    none = SECTION.model_copy(update={"foreground": "none"})
    assert np.array_equal(starts(data, "wide", none), starts(data, "empty", none))


def test_the_share_is_the_chance_of_foreground(data: Prepared) -> None:
    half = starts(data, "wide", SECTION.model_copy(update={"share": 0.5}), 1000)
    around = np.mean([holds(data, "wide", start, 1) or holds(data, "wide", start, 2) for start in half])
    by_chance = np.mean(
        [
            holds(data, "wide", start, 1) or holds(data, "wide", start, 2)
            for start in starts(data, "wide", SECTION.model_copy(update={"share": 0.0}), 1000)
        ]
    )
    assert around == pytest.approx(0.5 + 0.5 * by_chance, abs=0.05)


@pytest.mark.parametrize(("foreground", "share"), [("voxel", 8 / (8 + 64)), ("class", 0.5)])
def test_a_small_class_is_as_likely_as_its_voxels_or_as_any(config: Config, foreground: Any, share: float) -> None:
    labels = np.zeros((40, 20, 12), np.uint8)
    labels[1:3, 1:3, 1:3], labels[34:38, 14:18, 6:10] = 1, 2
    image = np.random.default_rng(0).integers(1, 9, (1, 40, 20, 12)).astype(np.int16)
    data = write_cases(config, [raw_case("two", labels, image)], ("a", "b")).for_network(SIZE, UNIT)
    found = starts(data, "two", SECTION.model_copy(update={"foreground": foreground}), 1500)
    assert np.mean([holds(data, "two", start, 1) for start in found]) == pytest.approx(share, abs=0.04)


def test_regions_are_classes_of_several_labels(config: Config) -> None:
    """All of the whole (labels 1 and 2) and the core (2) are as likely; of the whole, each voxel."""
    labels = np.zeros((40, 20, 12), np.uint8)
    labels[1:3, 1:3, 1:3], labels[34:38, 14:18, 6:10] = 2, 1
    image = np.random.default_rng(0).integers(1, 9, (1, 40, 20, 12)).astype(np.int16)
    scheme = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2))
    dataset = Dataset("drawn", "none", "none", "", scheme, iter([raw_case("two", labels, image)]))
    data = write_prepared(dataset, config.data, config.paths.prepared).for_network(SIZE, UNIT)
    found = starts(data, "two", SECTION.model_copy(update={"foreground": "class"}), 1500)
    share = np.mean([holds(data, "two", start, 2) for start in found])
    assert share == pytest.approx(0.5 + 0.5 * 8 / 72, abs=0.04)


def test_a_patch_holds_what_the_volume_does(data: Prepared) -> None:
    image, labels = data.resampled("wide")
    part = (slice(3, 11), slice(12, 20), slice(7, 11))
    found_image, found_labels = data.patch("wide", (3, 12, 7))
    assert torch.equal(found_image, image[(slice(None), *part)])
    assert torch.equal(found_labels, labels[part])


def test_a_smaller_volume_lies_in_the_middle_of_its_patch(data: Prepared) -> None:
    """As sliding windows pad it: nothing outside is labeled, and the values there are 0."""
    found = starts(data, "small", SECTION)
    assert set(found[:, 0]) == {-1}  # 3 rows too few: one before, two after
    assert set(found[:, 2]) == {0}  # 1 slice too few
    start = found[0]
    image, labels = data.patch("small", start)
    whole, truth = data.resampled("small")
    columns = slice(int(start[1]), int(start[1]) + 8)
    assert torch.equal(image[:, 1:6, :, 0:3], whole[:, :, columns])
    assert torch.equal(labels[1:6, :, 0:3], truth[:, columns])
    outside = torch.ones(SIZE, dtype=torch.bool)
    outside[1:6, :, 0:3] = False
    assert not image[0][outside].any()
    assert not labels[outside].any()


def test_a_sample_has_a_patch_of_its_own_in_each_epoch(data: Prepared) -> None:
    cases = ["wide"] * 4 + ["empty"] * 4
    batch = load_patches(data, cases, range(8), SECTION, seed=0, epoch=1)
    alone = [load_patches(data, [case], [k], SECTION, seed=0, epoch=1) for k, case in enumerate(cases)]
    assert torch.equal(batch[0], torch.cat([images for images, _ in alone]))
    assert torch.equal(batch[1], torch.cat([labels for _, labels in alone]))
    assert batch[0].shape == (8, 1, *SIZE)
    assert (batch[0].dtype, batch[1].dtype) == (torch.float32, torch.int64)
    several = Counter(
        load_patches(data, ["empty"], [sample], SECTION, seed, epoch)[0].sum().item()
        for sample in (0, 1)
        for seed in (0, 1)
        for epoch in (0, 1)
    )
    assert len(several) == 8


def test_ct_takes_its_statistics_from_the_cases_asked_for(config: Config) -> None:
    """Other cases, of the test part say, change nothing; without a labeled voxel there are none."""
    config = config.override({"data.intensity": "ct"})

    def written(other: int) -> Prepared:
        cases = [
            volume("train", (30, 20, 12), {1: (3, 3, 3), 2: (9, 9, 9)}),
            volume("other", (30, 20, 12), {1: (other, 3, 3)}),
            volume("empty", (30, 20, 12), {}),
        ]
        prepared = str(config.paths.prepared.with_name(f"prepared-{other}"))
        return write_cases(config.override({"paths.prepared": prepared}), cases, ("a", "b"))

    first, second = written(5), written(20)
    assert first.sha256 != second.sha256
    assert first.intensity_of(["train", "empty"]) == second.intensity_of(["train", "empty"])
    assert first.intensity_of(["train", "other"]) != second.intensity_of(["train", "other"])
    values = first.original("train")[0][0][first.original("train")[1] > 0].double()
    assert first.intensity_of(["train"]).foreground[0].mean == pytest.approx(values.mean().item())
    with pytest.raises(InputError, match=r"data\.intensity: found ct, but nothing is labeled in the cases"):
        first.intensity_of(["empty"])
