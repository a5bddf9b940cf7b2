"""AUROC and IoU of activation maps against SciPy and by hand, and their floors."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from llm4seg.analysis.maps import activation
from llm4seg.analysis.overlap import auroc, floors, iou_area, iou_best, iou_otsu, otsu_threshold, overlaps

MASK_HW = torch.zeros(6, 8, dtype=torch.bool)
MASK_HW[2:5, 3:6] = True
SHARE = 9 / 48
IOUS = ("iou_best", "iou_otsu", "iou_area")


def random_values(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def iou(predicted: np.ndarray, mask: np.ndarray) -> float:
    return float((predicted & mask).sum() / (predicted | mask).sum())


def test_the_mask_as_the_map_scores_one() -> None:
    assert overlaps(MASK_HW.double(), MASK_HW) == dict.fromkeys(("auroc", *IOUS), 1.0)


def test_the_masks_complement_scores_nothing() -> None:
    found = overlaps(1 - MASK_HW.double(), MASK_HW)
    assert (found["auroc"], found["iou_best"], found["iou_otsu"]) == (0, 0, 0)


@pytest.mark.parametrize("decimals", [1, 12], ids=["ties", "no ties"])
def test_auroc_is_mann_whitneys_u_of_scipy(decimals: int) -> None:
    values = random_values(6, 8).round(decimals=decimals)
    u = mannwhitneyu(values[MASK_HW].numpy(), values[~MASK_HW].numpy()).statistic
    assert auroc(values, MASK_HW) == pytest.approx(u / (9 * 39), abs=1e-12)


def test_iou_best_is_the_best_of_nine_thresholds() -> None:
    values, mask = random_values(48).numpy(), MASK_HW.reshape(-1).numpy()
    expected = max(iou(values > step / 10, mask) for step in range(1, 10))
    assert iou_best(torch.from_numpy(values), MASK_HW.reshape(-1)) == pytest.approx(expected)


def test_otsus_threshold_minimizes_the_variance_within_both_sides() -> None:
    values = random_values(20, seed=3).numpy()
    within = {
        cut: (values <= cut).sum() * values[values <= cut].var() + (values > cut).sum() * values[values > cut].var()
        for cut in sorted(values)[:-1]
    }
    expected = min(within, key=lambda cut: within[cut])
    assert otsu_threshold(values) == expected
    mask = torch.arange(20) < 7
    assert iou_otsu(torch.from_numpy(values), mask) == pytest.approx(iou(values > expected, mask.numpy()))


def test_iou_area_takes_as_many_tokens_as_the_mask_has() -> None:
    values, mask = random_values(48).numpy(), MASK_HW.reshape(-1).numpy()
    largest = np.zeros(48, bool)
    largest[np.argsort(values)[-9:]] = True
    assert iou_area(torch.from_numpy(values), MASK_HW.reshape(-1)) == pytest.approx(iou(largest, mask))


def test_tokens_tied_at_the_cut_count_in_part() -> None:
    # one token is above, and three share the second place, of which one is in the mask of two
    values, mask = torch.tensor([3.0, 1, 1, 1, 0]), torch.tensor([True, True, False, False, False])
    assert iou_area(values, mask) == pytest.approx((1 + 1 / 3) / (4 - (1 + 1 / 3)))


def test_without_a_mask_nothing_is_defined_and_a_full_one_has_no_outside() -> None:
    values = random_values(5)
    assert all(math.isnan(value) for value in overlaps(values, torch.zeros(5, dtype=torch.bool)).values())
    assert all(
        math.isnan(value)
        for of_measure in floors(values, torch.zeros(5, dtype=torch.bool)).values()
        for value in of_measure.values()
    )
    assert math.isnan(auroc(values, torch.ones(5, dtype=torch.bool)))


def test_the_floors_of_a_constant_map_are_its_own_scores() -> None:
    constant = torch.zeros(6, 8)
    found = floors(constant, MASK_HW)
    assert {name: one["everything"] for name, one in found.items()} == {"auroc": 0.5} | dict.fromkeys(IOUS, SHARE)
    shifted = {name: one["shifted"] for name, one in found.items()}
    assert shifted == pytest.approx(overlaps(constant, MASK_HW))
    assert shifted["auroc"] == 0.5


@pytest.mark.parametrize("grid", [(6, 8), (4, 3, 4)], ids=["2-D", "3-D"])
def test_the_shifted_floor_is_near_the_mean_of_every_shift_of_the_map(grid: tuple[int, ...]) -> None:
    mask, values = torch.zeros(grid, dtype=torch.bool), random_values(*grid, seed=1)
    mask[tuple(slice(1, 3) for _ in grid)] = True
    every = [values.roll(move, tuple(range(len(grid)))) for move in itertools.product(*map(range, grid))]
    found = floors(values, mask, shifts=4000)
    for name, measure in {"auroc": auroc, "iou_best": iou_best, "iou_otsu": iou_otsu, "iou_area": iou_area}.items():
        expected = np.mean([measure(one, mask) for one in every])
        assert found[name]["shifted"] == pytest.approx(expected, abs=0.01), name


def test_floors_depend_on_their_seed_alone() -> None:
    values = random_values(6, 8)
    assert floors(values, MASK_HW, seed=1) == floors(values, MASK_HW, seed=1)
    assert floors(values, MASK_HW, seed=1) != floors(values, MASK_HW, seed=2)


def test_tokens_that_hold_the_mask_score_one_and_shuffled_ones_the_floor() -> None:
    random = torch.Generator().manual_seed(4)
    planted = 0.01 * torch.randn(48, 16, generator=random)
    planted[:, 5] += 10 * MASK_HW.reshape(-1)
    assert overlaps(activation(planted), MASK_HW.reshape(-1)) == dict.fromkeys(("auroc", *IOUS), 1.0)
    scores = []
    for _ in range(200):
        shuffled = activation(planted[torch.randperm(48, generator=random)])
        scores.append([auroc(shuffled, MASK_HW.reshape(-1)), iou_area(shuffled, MASK_HW.reshape(-1))])
    # 200 shuffles, whose AUROC has a standard deviation of 0.08
    assert np.mean(scores, axis=0) == pytest.approx([0.5, 0.11], abs=0.03)
