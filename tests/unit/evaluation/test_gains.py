"""What options of the evaluation add: by hand, and nothing where they are off."""

import math
from pathlib import Path

import numpy as np
import pytest

from llm4seg.config import Config
from llm4seg.config.schema import Evaluation
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split
from llm4seg.evaluation.evaluate import draw_examples, evaluate, evaluate_cases
from llm4seg.evaluation.gains import gains, remarks
from llm4seg.evaluation.masks import check_turned
from llm4seg.inference.prepared import Member
from llm4seg.objectives.metrics import Row
from llm4seg.utils.errors import InputError
from tests.finished_run import ByIntensity, config_at, raw_case, write_cases

SECTION = Evaluation(
    models=None, overlap=0.5, tta=(), postprocess=(), nsd_tolerance=1.0, bootstrap=500, confidence=0.95, seed=0
)
SMALL = {"data.size": [16, 16], "data.intensity": "unit", "evaluation.bootstrap": 100}
LEVELS, WEAK = [0.0, 0.4, 0.8], [0.0, 0.9, 9.0]
SPLIT = Split("by hand", 0, train=("c0",), val=("c1",), test=("c2", "c3", "c4", "c5", "c6"), left_out=(), folds=())


def rows(dice: list[list[float]], false: list[list[int]]) -> list[Row]:
    """A row per case and class."""
    return [
        {"case": f"c{k}", "group": f"g{k}", "class": "ab"[c], "dice": one, "nsd": one, "false_lesions": false[k][c]}
        for k, of_case in enumerate(dice)
        for c, one in enumerate(of_case)
    ]


def test_paired_differences_by_hand() -> None:
    """A class that one of both rightly does not predict scores the best there; in neither, it counts nowhere."""
    nan = math.nan
    new = rows([[0.9, nan], [0.8, 0.6], [0.7, nan]], [[0, 0], [1, 0], [2, 0]])
    old = rows([[0.7, 0.0], [0.8, 0.5], [0.6, nan]], [[3, 1], [1, 0], [1, 0]])
    found = gains(new, [old], SECTION)
    of_cases = [(0.2 + 1.0) / 2, (0 + 0.1) / 2, 0.1]
    assert found["dice"]["mean"] == pytest.approx(np.mean(of_cases), abs=1e-6)
    assert (found["dice"]["n"], found["dice"]["low"]) == (3, None)  # too few cases for an interval
    assert found["classes"]["b"]["dice"]["mean"] == pytest.approx(np.mean([1.0, 0.1]), abs=1e-6)
    assert found["false_lesions"]["mean"] == pytest.approx(np.mean([-4, 0, 1]), abs=1e-6)
    assert found["classes"]["a"]["false_lesions"]["mean"] == pytest.approx(np.mean([-3, 0, 1]), abs=1e-6)


def test_an_ensemble_is_compared_with_the_mean_of_its_members() -> None:
    new = rows([[0.9], [0.8], [0.7], [0.9], [1.0]], [[0]] * 5)
    one, two = (
        rows([[0.7], [0.8], [0.6], [0.5], [1.0]], [[1]] * 5),
        rows([[0.8], [0.6], [0.6], [0.9], [0.9]], [[0]] * 5),
    )
    found = gains(new, [one, two], SECTION)
    differences = [0.9 - 0.75, 0.8 - 0.7, 0.7 - 0.6, 0.9 - 0.7, 1.0 - 0.95]
    assert found["dice"]["mean"] == pytest.approx(np.mean(differences), abs=1e-6)
    assert min(differences) <= found["dice"]["low"] < np.mean(differences) < found["dice"]["high"] <= max(differences)
    assert found["false_lesions"]["mean"] == -0.5


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_at(tmp_path, SMALL)


def labels(k: int) -> np.ndarray:
    drawn = np.zeros((16, 16), dtype=int)
    drawn[2:9, 3 : 9 + k % 3], drawn[11:15, 4:14] = 1, 2
    return drawn


@pytest.fixture
def data(config: Config) -> Prepared:
    """Images in which small specks look like the first class."""
    cases = []
    for k in range(7):
        image = (labels(k) * 100).astype(np.uint8)
        image[0, 0], image[0, 14], image[9, 15] = 100, 100, 255
        cases.append(raw_case(f"c{k}", labels(k), image[None]))
    return write_cases(config, cases, "ab")


def test_without_options_there_are_no_gains(data: Prepared, config: Config) -> None:
    summary = evaluate(ByIntensity(LEVELS), data, SPLIT, config.evaluation).summary
    assert "gains" not in summary
    assert remarks(summary) == []


def test_post_processing_removes_what_is_false(data: Prepared, config: Config, tmp_path: Path) -> None:
    section = config.override({"evaluation.postprocess": ["largest:a", "min:4:b"]}).evaluation
    plain = evaluate(ByIntensity(LEVELS), data, SPLIT, config.evaluation)
    found = evaluate(ByIntensity(LEVELS), data, SPLIT, section)
    assert [row["false_lesions"] for row in plain.rows] == [2, 1] * 5
    assert [row["false_lesions"] for row in found.rows] == [0, 0] * 5
    assert found.summary["gains"].keys() == {"postprocess"}
    gain = found.summary["gains"]["postprocess"]
    expected = found.summary["dice"]["mean"] - plain.summary["dice"]["mean"]
    assert gain["dice"]["mean"] == pytest.approx(expected, abs=2e-6)
    assert gain["dice"]["low"] > 0
    assert gain["false_lesions"]["mean"] == -3
    assert remarks(found.summary)[0].startswith("post-processing adds +")
    draw_examples(ByIntensity(LEVELS), data, found.rows, section, tmp_path / "overlays")
    assert len([*(tmp_path / "overlays").iterdir()]) == 3


def test_mirroring_changes_nothing_for_a_network_that_is_symmetric(data: Prepared, config: Config) -> None:
    section = config.override({"evaluation.tta": [0, 1]}).evaluation
    found = evaluate(ByIntensity(LEVELS, blur=1), data, SPLIT, section)
    assert found.rows == evaluate_cases(ByIntensity(LEVELS, blur=1), data, SPLIT.test, config.evaluation)[0]
    assert found.summary["gains"]["tta"]["dice"]["mean"] == 0


def test_an_ensemble_is_the_mean_of_probabilities(data: Prepared, config: Config) -> None:
    """Of one network twice, it is that network."""
    single = evaluate(ByIntensity(LEVELS), data, SPLIT, config.evaluation)
    twice = evaluate(ByIntensity(LEVELS), data, SPLIT, config.evaluation, others=[Member(ByIntensity(LEVELS), data)])
    assert twice.rows == single.rows
    assert twice.summary["gains"]["ensemble"]["dice"]["mean"] == 0
    mixed = evaluate(ByIntensity(WEAK), data, SPLIT, config.evaluation, others=[Member(ByIntensity(LEVELS), data)])
    weak = evaluate(ByIntensity(WEAK), data, SPLIT, config.evaluation)
    means = [result.summary["dice"]["mean"] for result in (mixed, single, weak)]
    assert mixed.summary["gains"]["ensemble"]["dice"]["mean"] == pytest.approx(
        means[0] - (means[1] + means[2]) / 2, abs=2e-6
    )


def test_options_that_do_not_fit_the_data_are_refused(data: Prepared, config: Config) -> None:
    section = config.override({"evaluation.postprocess": ["largest:liver"]}).evaluation
    with pytest.raises(InputError, match=r"evaluation.postprocess: found the class liver, allowed: a, b"):
        evaluate(ByIntensity(LEVELS), data, SPLIT, section)


def test_sides_without_a_counterpart_are_not_mirrored(config: Config) -> None:
    sides = write_cases(config, [raw_case(f"c{k}", labels(k)) for k in range(7)], ["left", "rest"])
    section = config.override({"evaluation.tta": [1]}).evaluation
    with pytest.raises(InputError, match=r"evaluation.tta: found \[1\], which exchanges left and right, but not"):
        evaluate(ByIntensity(LEVELS), sides, SPLIT, section)


def test_mirroring_after_a_training_with_turns_keeps_to_the_axis_of_the_sides(config: Config) -> None:
    sides = write_cases(config, [raw_case(f"c{k}", labels(k)) for k in range(7)], ["left", "rest"])
    augmented = config.override({"training.augment.quarter_turns": True}).training.augment
    for axes, refused in (([0], True), ([0, 1], True), ([1], False)):
        section = config.override({"evaluation.tta": axes}).evaluation
        if not refused:
            check_turned(sides, section, augmented)
            continue
        with pytest.raises(InputError, match=r"evaluation.tta: found .*quarter_turns, .* allowed: without 0$"):
            check_turned(sides, section, augmented)
        check_turned(sides, section, augmented.model_copy(update={"quarter_turns": False}))
