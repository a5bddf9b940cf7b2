"""Comparisons of arms: against values worked by hand, SciPy's own, and in what they say."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llm4seg.config import Config
from llm4seg.study.mixed import fit_mixed
from llm4seg.study.results import case_table, results
from llm4seg.study.statistics import case_scores, compare, holm, over_units, pairs, wilcoxon_p
from llm4seg.study.verdict import caution, verdict
from tests.studied import as_cells, cells, studied
from tests.tiny import PARAMS

CONFIG = Config.load(PARAMS).override({"study.repeats": 5, "evaluation.bootstrap": 500})
SECTION = CONFIG.evaluation
EFFECTS = {"cnn": 0.0, "random": 0.0, "llm": 0.05}


def table_of(rows: list[tuple[str, int, str, str, str, float]]) -> pd.DataFrame:
    columns = ["arm", "repeat", "case", "group", "class", "dice"]
    return pd.DataFrame(rows, columns=columns).assign(fold=None, data="drawn")


def test_a_cases_score_is_its_mean_over_the_classes_present() -> None:
    table = table_of([("a", 0, "x", "g", "1", 0.2), ("a", 0, "x", "g", "2", 0.6), ("a", 0, "x", "g", "3", np.nan)])
    assert case_scores(table, "dice")["score"].tolist() == [pytest.approx(0.4)]


def test_only_what_both_arms_have_is_paired() -> None:
    rows = [("a", 0, "x", "g", "1", 0.5), ("a", 0, "y", "g", "1", 0.9), ("a", 1, "x", "g", "1", 0.7)]
    rows += [("b", 0, "x", "g", "1", 0.4), ("b", 0, "y", "g", "1", np.nan), ("b", 2, "x", "g", "1", 0.1)]
    paired = pairs(case_scores(table_of(rows), "dice"), "a", "b")
    assert paired[["run", "case"]].to_numpy().tolist() == [["0/-1", "x"]]
    assert paired["difference"].tolist() == [pytest.approx(0.1)]


@pytest.mark.parametrize(("patients", "unit"), [(4, "case"), (5, "group")])
def test_patients_are_the_unit_where_there_are_five(patients: int, unit: str) -> None:
    table = case_table(studied({"a": 0.0, "b": 0.0}, 3, patients, slices=6))
    row = compare(pairs(case_scores(table, "dice"), "a", "b"), SECTION)
    assert (row["unit"], row["units"], row["cases"], row["groups"]) == (
        unit, patients if unit == "group" else 24, 6 * patients, patients,
    )  # fmt: skip


def test_six_equal_signs_are_rare_once_in_32_times() -> None:
    assert wilcoxon_p(np.array([1.0, 2, 3, 4, 5, 6])) == pytest.approx(2 / 2**6)
    assert wilcoxon_p(np.array([1.0, 2, 3, 4, 5])) is None
    drawn = np.random.default_rng(0).normal(0.3, 1, 30)
    assert wilcoxon_p(drawn) == stats.wilcoxon(drawn).pvalue


def test_holms_correction_by_hand() -> None:
    corrected = holm(pd.Series([0.01, None, 0.04, 0.03]))
    assert corrected[[0, 2, 3]].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(corrected[1])


def test_the_mixed_model_is_the_analysis_of_variance_of_a_whole_table() -> None:
    """Three runs of six units, worked out by sums of squares."""
    table = np.array([[1, 4, 2, 6, 9, 3], [2, 6, 1, 8, 9, 6], [5, 7, 4, 8, 13, 8.0]])
    fitted = fit_mixed(as_cells(table[None] / 100))
    assert fitted is not None
    runs, units = table.shape
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    of_runs, of_units = units * table.mean(1).var(ddof=1), runs * table.mean(0).var(ddof=1)
    of_rest = (rest**2).sum() / ((runs - 1) * (units - 1))
    square = of_runs + of_units - of_rest
    df = square**2 / (of_runs**2 / 2 + of_units**2 / 5 + of_rest**2 / 10)
    assert fitted.effect == pytest.approx(table.mean() / 100)
    assert fitted.error == pytest.approx((square / table.size) ** 0.5 / 100, rel=1e-3)
    assert fitted.df == pytest.approx(df, rel=1e-2)
    half = stats.t.ppf(0.975, df) * (square / table.size) ** 0.5 / 100
    assert fitted.interval(0.95) == pytest.approx((table.mean() / 100 - half, table.mean() / 100 + half), rel=1e-2)
    assert fitted.p == pytest.approx(2 * stats.t.sf(fitted.effect / fitted.error, df), rel=2e-2)


def test_where_runs_do_not_differ_it_is_students_t_over_units() -> None:
    """Equal differences in each run: the units are all there is."""
    units = np.random.default_rng(1).normal(0.01, 0.03, 20)
    noise = np.random.default_rng(2).normal(0, 1e-3, (1, 4, 20))
    fitted, expected = fit_mixed(as_cells(units + noise)), stats.ttest_1samp(units, 0)
    assert fitted is not None
    assert fitted.p == pytest.approx(expected.pvalue, rel=0.02)


def test_too_few_runs_leave_the_bootstrap_alone() -> None:
    table = case_table(studied({"a": 0.0, "b": 0.0}, 2, 20))
    row = compare(pairs(case_scores(table, "dice"), "a", "b"), SECTION)
    assert (row["method"], row["p"], row["low"]) == ("bootstrap", None, row["bootstrap_low"])
    row = compare(pairs(case_scores(case_table(studied({"a": 0.0, "b": 0.0}, 3, 20)), "dice"), "a", "b"), SECTION)
    assert row["method"] == "mixed model"
    assert row["p"] is not None


def test_the_bootstraps_interval_is_as_wide_as_students_t() -> None:
    values = np.random.default_rng(5).normal(0.01, 0.03, 15)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    low, high = over_units(values, SECTION.model_copy(update={"bootstrap": 20000}))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.0015)
    assert over_units(values[:1], SECTION) == (None, None)


def test_equal_arms_differ_by_nothing() -> None:
    runs = studied({"a": 0.0}, 3, 8)
    again = [(type(run)("b", run.repeat, None), record) for run, record in runs]
    row = compare(pairs(case_scores(case_table([*runs, *again]), "dice"), "a", "b"), SECTION)
    assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
    assert (row["superiority"], row["effect_size"], row["p"]) == (0.5, None, None)


def test_effect_size_and_superiority_by_hand() -> None:
    rows = [("b", r, case, case, "1", 0.5) for r in (0, 1) for case in "uvwxyz"]
    better = dict(zip("uvwxyz", (0.1, 0.2, -0.1, 0.0, 0.1, 0.3), strict=True))
    rows += [("a", r, case, case, "1", 0.5 + better[case]) for r in (0, 1) for case in "uvwxyz"]
    row = compare(pairs(case_scores(table_of(rows), "dice"), "a", "b"), SECTION)
    values = np.array(list(better.values()))
    assert row["difference"] == pytest.approx(0.1)
    assert row["effect_size"] == pytest.approx(0.1 / values.std(ddof=1))
    assert row["superiority"] == pytest.approx(4.5 / 6)


def study_of(runs: Any, arms: dict[str, float]) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    section = {"study.arms": {name: {} for name in arms}, "study.references": ["cnn", "random"]}
    return results(CONFIG.override(section), runs)


def test_finds_the_arm_that_is_better_and_says_so() -> None:
    said, tables = study_of(studied(EFFECTS, 5, 30, seed=1), EFFECTS)
    rows = tables["comparisons"].set_index(["reference", "arm"])
    assert rows.loc[("cnn", "llm"), "p_holm"] < 0.01 < 0.05 < rows.loc[("cnn", "random"), "p_holm"]
    assert rows.loc[("random", "llm"), "low"] < 0.05 < rows.loc[("random", "llm"), "high"]
    better = next(line for line in said["verdicts"] if line.startswith("llm: +") and "against random" in line)
    assert "95 % interval" in better
    assert better.endswith("5 paired runs: better than random")
    assert any(line.endswith("not distinguishable from cnn") for line in said["verdicts"])
    assert said["cautions"] == []
    assert (said["runs"], said["finished"], said["failed"], said["missing"]) == (15, 15, 0, 0)


def test_what_has_failed_or_is_missing_is_told_and_the_rest_compared() -> None:
    runs = studied(EFFECTS, 3, 10)
    runs[1] = (runs[1][0], {"name": "x", "error": "the loss is nan"})
    runs[5] = (runs[5][0], None)
    said, tables = study_of(runs, EFFECTS)
    assert (said["finished"], said["failed"], said["missing"], said["failures"]) == (7, 1, 1, ["the loss is nan"])
    rows = tables["comparisons"].set_index(["reference", "arm"])
    assert rows.loc[("cnn", "random"), "runs"] == 2
    assert rows.loc[("random", "llm"), "runs"] == 1
    assert len(tables["study"]) == 7 * 10 * 2


def test_one_brain_is_named_as_such() -> None:
    said, _ = study_of(studied(EFFECTS, 5, 1, slices=30), EFFECTS)
    assert said["cautions"] == [
        "All 30 cases are of one patient or volume: the intervals are over its cases and over training seeds, and say "
        "nothing of other patients."
    ]


ROW = {"arm": "llm", "reference": "random", "difference": 0.004, "low": -0.001, "high": 0.009, "p": 0.1, "p_holm": 0.2}
ROW |= {"runs": 12, "unit": "group", "groups": 30, "cases": 36}


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, "12 paired runs: not distinguishable from random"),
        ({"p": 0.01, "p_holm": 0.02}, "better than random"),
        ({"p": 0.01, "p_holm": 0.02, "difference": -0.004}, "worse than random"),
        ({"p": 0.01, "p_holm": 0.06}, "not distinguishable from random once all arms are counted (Holm's correction)"),
        ({"p": None, "p_holm": None, "runs": 1}, "1 paired run: too few runs to say whether it differs from random"),
        ({"p": np.nan, "p_holm": np.nan}, "too few runs to say whether it differs from random"),
    ],
)
def test_verdicts(changes: dict[str, Any], end: str) -> None:
    assert verdict(ROW | changes, "dice", 0.95).endswith(end)


def test_a_verdict_in_full() -> None:
    assert verdict(ROW, "dice", 0.95) == (
        "llm: +0.4 Dice points against random, 95 % interval -0.1 to 0.9, 12 paired runs: "
        "not distinguishable from random"
    )
    assert caution(ROW) is None
    assert "too few to resample" in str(caution(ROW | {"unit": "case", "groups": 3}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runs", "units", "folds", "spread"),
    [(5, 36, 1, (0.01, 0.03, 0.04)), (12, 20, 1, (0.01, 0.03, 0.04)), (2, 12, 5, (0.01, 0.03, 0.04))],
)
def test_intervals_cover_and_errors_are_as_often_as_they_say(
    runs: int, units: int, folds: int, spread: tuple[float, float, float]
) -> None:
    """Of 1000 studies of a known effect; without an effect, one in twenty is found all the same."""
    random, effect, covered, found = np.random.default_rng(0), 0.01, 0, 0
    for _ in range(1000):
        fitted = fit_mixed(cells(random, runs, units, effect, *spread, folds=folds))
        assert fitted is not None
        low, high = fitted.interval(0.95)
        covered += low <= effect <= high
        found += 2 * stats.t.sf(abs(fitted.effect - effect) / fitted.error, fitted.df) < 0.05
    assert covered / 1000 == pytest.approx(0.95, abs=0.02)
    assert found / 1000 == pytest.approx(0.05, abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize("units", [12, 36])
def test_the_bootstrap_covers_over_units(units: int) -> None:
    """The trained networks given: no spread between runs."""
    random, section, covered = np.random.default_rng(0), SECTION.model_copy(update={"bootstrap": 1000}), 0
    for _ in range(1000):
        low, high = over_units(0.01 + random.normal(0, 0.03, units), section)
        assert low is not None
        assert high is not None
        covered += low <= 0.01 <= high
    assert covered / 1000 == pytest.approx(0.95, abs=0.02)
