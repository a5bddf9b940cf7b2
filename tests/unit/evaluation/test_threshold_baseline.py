"""The intensity baseline: the best interval there is, found on the training part."""

from pathlib import Path

import numpy as np
import pytest
import torch

from llm4seg.evaluation.threshold_baseline import BINS, Interval, best_interval, bin_edges, fit_intervals
from llm4seg.objectives.metrics import class_counts, dice_from_counts
from tests.finished_run import config_at, raw_case, write_cases

SMALL = {"data.size": [16, 16], "data.intensity": "unit"}


def brute_force(inside: np.ndarray, total: np.ndarray) -> float:
    """The best Dice of any interval of bins."""
    pairs = [(start, stop) for start in range(len(total)) for stop in range(start + 1, len(total) + 1)]
    return max(2 * inside[a:b].sum() / (total[a:b].sum() + inside.sum()) for a, b in pairs)


@pytest.mark.parametrize("seed", range(5))
def test_no_interval_of_bins_is_better(seed: int) -> None:
    random = np.random.default_rng(seed)
    inside = random.integers(0, 20, 12)
    total = inside + random.integers(0, 30, 12)
    edges = np.arange(13, dtype=np.float32)
    found = best_interval(inside, total, edges)
    chosen = slice(int(found.low), int(found.high))
    dice = 2 * inside[chosen].sum() / (total[chosen].sum() + inside.sum())
    assert dice == pytest.approx(brute_force(inside, total))


def test_finds_classes_that_intensity_tells_apart(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (4, 16, 16))
    data = write_cases(config_at(tmp_path, SMALL), [raw_case(f"c{k}", each) for k, each in enumerate(labels)], "ab")
    intervals = fit_intervals(data, list(data.cases))
    for case_id in data.cases:
        image_CS, labels_S = data.resampled(case_id)
        for label, interval in enumerate(intervals, start=1):
            assert torch.equal(interval.mask(image_CS[0]), labels_S == label)


def test_is_as_good_on_noise_as_labelling_everything(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels, image = random.integers(0, 2, (64, 64)), random.integers(0, 256, (1, 64, 64)).astype(np.uint8)
    config = config_at(tmp_path, {"data.size": [64, 64], "data.intensity": "unit"})
    data = write_cases(config, [raw_case("noise", labels, image)], ["a"])
    (interval,) = fit_intervals(data, ["noise"])
    image_CS, labels_S = data.resampled("noise")
    dice = dice_from_counts(class_counts(interval.mask(image_CS[0]), labels_S, 1)).item()
    everything = dice_from_counts(class_counts(torch.ones_like(labels_S), labels_S, 1)).item()
    assert everything <= dice < everything + 0.01


def test_a_class_that_training_never_shows_is_predicted_nowhere(tmp_path: Path) -> None:
    one, two = np.zeros((2, 16, 16), dtype=int)
    one[:4], two[:4], two[8:] = 1, 1, 2
    data = write_cases(config_at(tmp_path, SMALL), [raw_case("one", one), raw_case("two", two)], "ab")
    _, interval = fit_intervals(data, ["one"])
    assert not interval.mask(data.resampled("two")[0][0]).any()


def test_nothing_labelled_gives_empty_intervals(tmp_path: Path) -> None:
    empty, some = np.zeros((2, 16, 16), dtype=int)
    some[:4] = 1
    data = write_cases(config_at(tmp_path, SMALL), [raw_case("empty", empty), raw_case("some", some)], "a")
    (interval,) = fit_intervals(data, ["empty"])
    assert not interval.mask(data.resampled("some")[0][0]).any()


def test_edges_are_quantiles_of_labelled_pixels_and_reach_to_infinity(tmp_path: Path) -> None:
    image = np.arange(64 * 64, dtype=np.float32).reshape(1, 64, 64)
    labels = (image[0] >= 2048).astype(int)
    config = config_at(tmp_path, {"data.size": [64, 64], "data.intensity": "window", "data.window": [0, 4096]})
    data = write_cases(config, [raw_case("ramp", labels, image)], "a")
    edges = bin_edges(data, ["ramp"])
    assert len(edges) == BINS + 1
    assert (edges[0], edges[-1]) == (-np.inf, np.inf)
    assert np.diff(edges[1:-1]) == pytest.approx(0.5 / (BINS - 2), rel=0.05)
    assert edges[1] == pytest.approx(0.5)


def test_an_interval_is_half_open() -> None:
    assert Interval(1.0, 2.0).mask(torch.tensor([0.9, 1.0, 1.9, 2.0])).tolist() == [False, True, True, False]
