"""Means and intervals against what theory and hand-work say."""

import math

import numpy as np
import pytest
from scipy import stats

from llm4seg.config.schema import Evaluation
from llm4seg.evaluation.summary import case_means, summarize
from llm4seg.objectives.metrics import Row

SECTION = Evaluation(
    models=None, tta=(), postprocess=(), overlap=0.5, nsd_tolerance=1.0, bootstrap=500, confidence=0.95, seed=0
)


def rows_of(dice: dict[str, list[float]], group_size: int = 1) -> list[Row]:
    """Rows with only a Dice: for each class a value a case."""
    return [
        {"case": f"c{at}", "group": f"g{at // group_size}", "class": name, "dice": value, "tp": 1, "fp": 1, "fn": 0}
        for name, values in dice.items()
        for at, value in enumerate(values)
    ]


def test_the_mean_over_classes_is_over_those_present_in_each_case() -> None:
    rows = rows_of({"a": [0.8, 0.6, math.nan], "b": [0.4, math.nan, math.nan]})
    assert case_means(rows, "dice") == pytest.approx({"c0": 0.6, "c1": 0.6, "c2": math.nan}, nan_ok=True)
    summary = summarize(rows, SECTION, ["dice"])
    assert summary["dice"]["mean"] == pytest.approx(0.6)
    assert summary["dice"]["n"] == 2
    assert summary["classes"]["a"]["dice"]["mean"] == pytest.approx(0.7)
    assert summary["classes"]["a"]["dice"]["std"] == pytest.approx(math.sqrt(0.02), abs=1e-6)


def test_what_does_not_exist_is_none() -> None:
    summary = summarize(rows_of({"a": [0.5, math.nan], "b": [math.nan, math.nan]}), SECTION, ["dice"])
    assert summary["classes"]["b"]["dice"] == {"mean": None, "std": None, "low": None, "high": None, "n": 0}
    assert summary["classes"]["a"]["dice"] == {"mean": 0.5, "std": None, "low": None, "high": None, "n": 1}


def test_counts_cases_in_which_a_class_is_absent_missed_or_false() -> None:
    rows = rows_of({"a": [math.nan, 0.0, 0.0, 0.0, 0.5]})
    counts = [(0, 0, 0), (0, 0, 4), (0, 3, 0), (0, 2, 2), (1, 1, 1)]
    for row, (tp, fp, fn) in zip(rows, counts, strict=True):
        row |= {"tp": tp, "fp": fp, "fn": fn}
    found = summarize(rows, SECTION, ["dice"])["classes"]["a"]
    assert (found["absent"], found["missed"], found["false"]) == (1, 1, 1)


def test_pooled_dice_adds_counts() -> None:
    rows = rows_of({"a": [0.0, 0.0]})
    rows[0] |= {"tp": 90, "fp": 10, "fn": 10}
    rows[1] |= {"tp": 0, "fp": 2, "fn": 0}
    assert summarize(rows, SECTION, ["dice"])["pooled_dice"] == pytest.approx(180 / 202, abs=1e-6)


def test_the_interval_is_that_of_the_normal_theory_where_both_hold() -> None:
    values = np.random.default_rng(3).normal(0.7, 0.1, 400)
    found = summarize(rows_of({"a": values.tolist()}), SECTION, ["dice"])["dice"]
    half = 1.96 * values.std(ddof=1) / 20
    assert (found["low"], found["high"]) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)


@pytest.mark.parametrize("units", [5, 8])
def test_of_few_units_the_interval_is_widened_as_students_t_is(units: int) -> None:
    values = np.random.default_rng(1).normal(0.7, 0.1, units)
    many = SECTION.model_copy(update={"bootstrap": 20000})
    found = summarize(rows_of({"a": values.tolist()}), many, ["dice"])["dice"]
    known = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    normal = 2 * 1.96 * values.std(ddof=0) / units**0.5
    assert 1.15 * normal < found["high"] - found["low"]
    assert found["high"] - found["low"] == pytest.approx(known.high - known.low, rel=0.25)


def test_fewer_than_five_units_have_no_interval() -> None:
    found = summarize(rows_of({"a": [0.5, 0.6, 0.7, 0.8]}), SECTION, ["dice"])["dice"]
    assert (found["mean"], found["low"], found["high"], found["n"]) == (0.65, None, None, 4)


def test_whole_groups_are_resampled_when_there_are_five() -> None:
    """Cases of a group are equal here, so that four of each group say no more than one."""
    means = [0.1, 0.9, 0.3, 0.7, 0.5]
    once, often = rows_of({"a": means}), rows_of({"a": [mean for mean in means for _ in range(4)]}, group_size=4)
    by_group, by_case = summarize(often, SECTION, ["dice"]), summarize(often[:16], SECTION, ["dice"])
    assert (by_group["unit"], by_group["groups"], by_group["cases"]) == ("group", 5, 20)
    assert (by_case["unit"], by_case["groups"]) == ("case", 4)
    expected = summarize(once, SECTION, ["dice"])["dice"]
    assert (by_group["dice"]["low"], by_group["dice"]["high"]) == (expected["low"], expected["high"])


def test_a_large_group_weighs_as_many_cases_as_it_has() -> None:
    rows = rows_of({"a": [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]})
    for row in rows[4:]:
        row["group"] = "g4"
    assert summarize(rows, SECTION, ["dice"])["dice"]["mean"] == pytest.approx(5 / 7, abs=1e-6)


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = rows_of({"a": np.random.default_rng(0).random(30).tolist()})
    assert summarize(rows, SECTION, ["dice"]) == summarize(rows, SECTION, ["dice"])
    other = SECTION.model_copy(update={"seed": 1})
    assert summarize(rows, SECTION, ["dice"])["dice"]["low"] != summarize(rows, other, ["dice"])["dice"]["low"]
