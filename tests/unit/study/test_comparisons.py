"""Comparisons of arms: against values worked by hand, SciPy's own, and in what they say."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from llm4seg.config import Config
from llm4seg.evaluation.summary import bootstrap_interval
from llm4seg.report.study_charts import draw_study
from llm4seg.study.comparisons import compare, holm, wilcoxon_p
from llm4seg.study.mixed_model import Mixed, fit_mixed
from llm4seg.study.pairs import class_scores, pairs, with_blocks
from llm4seg.study.results import case_table, read, results
from llm4seg.study.verdict import caution, verdict
from pipelines.study import write_results
from tests.study_factory import as_cells, cells, studied
from tests.tiny import PARAMS

CONFIG = Config.load(PARAMS).override({"study.repeats": 5, "evaluation.bootstrap": 500})
SECTION = CONFIG.evaluation
EFFECTS = {"cnn": 0.0, "random": 0.0, "llm": 0.05}


def table_of(rows: list[tuple[str, int, str, str, str, float]]) -> pd.DataFrame:
    columns = ["arm", "repeat", "case", "group", "class", "dice"]
    return pd.DataFrame(rows, columns=columns).assign(fold=None, data="drawn")


def test_a_cases_score_is_its_mean_over_the_classes_present() -> None:
    rows = [("1", 0.2, 0.3), ("2", 0.6, 0.5), ("3", np.nan, np.nan)]
    table = table_of([(arm, 0, "x", "g", name, both[at]) for name, *both in rows for at, arm in enumerate("ab")])
    paired = pairs(class_scores(table, "dice"), "a", "b")
    assert paired[["score", "score_reference"]].to_numpy().tolist() == [pytest.approx([0.4, 0.4])]


def test_only_what_both_arms_have_is_paired() -> None:
    rows = [("a", 0, "x", "g", "1", 0.5), ("a", 0, "y", "g", "1", np.nan), ("a", 1, "x", "g", "1", 0.7)]
    rows += [("b", 0, "x", "g", "1", 0.4), ("b", 0, "y", "g", "1", np.nan), ("b", 2, "x", "g", "1", 0.1)]
    paired = pairs(class_scores(table_of(rows), "dice"), "a", "b")
    assert paired[["run", "case"]].to_numpy().tolist() == [["0/-1", "x"]]
    assert paired["difference"].tolist() == [pytest.approx(0.1)]


def test_a_class_rightly_left_empty_counts_as_1_against_an_arm_that_sees_it() -> None:
    """Class 2 is in no image; only arm `a` finds it. Without the rule its pairs were dropped, and it was no worse."""
    rows = [(arm, 0, case, case, "1", 0.8) for arm in "ab" for case in "xyz"]
    rows += [("a", 0, "x", "x", "2", 0.0), ("b", 0, "x", "x", "2", np.nan)]
    rows += [(arm, 0, "y", "y", "2", np.nan) for arm in "ab"] + [(arm, 0, "w", "w", "2", np.nan) for arm in "ab"]
    rows += [("a", 0, "h", "h", "2", 0.0), ("b", 0, "h", "h", "2", np.nan)]
    paired = pairs(class_scores(table_of(rows), "dice"), "a", "b").set_index("case")
    assert paired["difference"].to_dict() == pytest.approx({"x": -0.5, "y": 0, "z": 0, "h": -1})
    assert paired.loc["x", ["score", "score_reference"]].tolist() == pytest.approx([0.4, 0.9])


def slices_of(volume: str | None, count: int) -> pd.DataFrame:
    rows = [(arm, r, f"s{at}", "p", "1", 0.5) for arm in "ab" for r in range(3) for at in range(count)]
    table = table_of(rows)
    return table.assign(volume=volume, position=table["case"].str[1:].astype(int) if volume else None)


def test_of_fewer_patients_blocks_of_neighboring_slices_are_the_unit() -> None:
    table = with_blocks(slices_of("brain", 36), 6)
    paired = pairs(class_scores(table, "dice"), "a", "b")
    assert set(paired["by"]) == {"block"}
    assert paired.set_index("case")["unit"].loc[["s5", "s6"]].unique().tolist() == ["brain 0", "brain 1"]
    row = compare(paired, SECTION)
    assert (row["unit"], row["units"], row["cases"]) == ("block", 6, 36)
    unplaced = pairs(class_scores(with_blocks(slices_of(None, 36), 6), "dice"), "a", "b")
    assert set(unplaced["by"]) == {"case"}


@pytest.mark.parametrize(("patients", "unit"), [(4, "case"), (5, "group")])
def test_patients_are_the_unit_where_there_are_five(patients: int, unit: str) -> None:
    table = case_table(studied({"a": 0.0, "b": 0.0}, 3, patients, slices=6))
    row = compare(pairs(class_scores(table, "dice"), "a", "b"), SECTION)
    assert (row["unit"], row["units"], row["cases"], row["groups"]) == (
        unit, patients if unit == "group" else 24, 6 * patients, patients,
    )  # fmt: skip


def test_six_equal_signs_are_rare_once_in_32_times() -> None:
    assert wilcoxon_p(np.array([1.0, 2, 3, 4, 5, 6])) == pytest.approx(2 / 2**6)
    assert wilcoxon_p(np.array([1.0, 2, 3, 4, 5])) is None
    drawn = np.random.default_rng(0).normal(0.3, 1, 30)
    assert wilcoxon_p(drawn) == stats.wilcoxon(drawn).pvalue


def test_holms_correction_equals_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    random = np.random.default_rng(0)
    for size in (1, 2, 7, 20):
        p_values = pd.Series(random.uniform(0, 0.2, size).round(2))  # with ties
        np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], rtol=1e-12)


def test_holms_correction_by_hand() -> None:
    corrected = holm(pd.Series([0.01, None, 0.04, 0.03]))
    assert corrected[[0, 2, 3]].tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(corrected[1])


def test_the_mixed_model_is_the_analysis_of_variance_of_a_whole_table() -> None:
    """Three runs of six units, worked out by sums of squares."""
    table = np.array([[1, 4, 2, 6, 9, 3], [2, 6, 1, 8, 9, 6], [5, 7, 4, 8, 13, 8.0]])
    fitted = fit_mixed(as_cells(table[None] / 100))
    assert isinstance(fitted, Mixed)
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


@pytest.mark.parametrize(("folds", "formula"), [(1, "scaled ~ 1"), (3, "scaled ~ 0 + C(fold)")])
def test_variances_of_a_table_with_gaps_are_those_of_statsmodels(folds: int, formula: str) -> None:
    table = cells(np.random.default_rng(4), 5, 14, 0.02, 0.02, 0.03, 0.04, folds=folds)
    table = table.sample(frac=0.85, random_state=1)
    fitted, scale = fit_mixed(table), float(table["difference"].std())
    assert isinstance(fitted, Mixed)
    model = MixedLM.from_formula(
        formula,
        table.assign(scaled=table["difference"] / scale),
        groups=np.ones(len(table)),
        re_formula="0",
        vc_formula={"run": "0 + C(run)", "unit": "0 + C(unit)"},
    )
    with warnings.catch_warnings(action="ignore"):
        known = model.fit(reml=True, method="powell")
    assert (fitted.run, fitted.unit, fitted.rest) == pytest.approx(
        tuple(scale**2 * float(value) for value in (*known.vcomp, known.scale)), rel=0.01
    )
    assert fitted.effect == pytest.approx(scale * known.fe_params.mean(), rel=1e-3)
    if folds == 1:
        assert fitted.error == pytest.approx(scale * known.bse_fe.iloc[0], rel=0.01)


def test_of_several_folds_it_is_students_t_over_their_means() -> None:
    table = cells(np.random.default_rng(6), 4, 10, 0.02, 0.01, 0.03, 0.04, folds=4, fold=0.05)
    fitted, means = fit_mixed(table), table.groupby("fold")["difference"].mean()
    assert isinstance(fitted, Mixed)
    known = stats.ttest_1samp(means, 0)
    assert (fitted.effect, fitted.p, fitted.df) == pytest.approx((means.mean(), known.pvalue, 3), rel=1e-6)
    assert fitted.fold is not None
    assert fitted.fold == pytest.approx(means.var(ddof=1), rel=0.2)


@pytest.mark.parametrize("folds", [5, 6])
def test_folds_of_one_run_or_one_unit_can_be_fitted(folds: int) -> None:
    random = np.random.default_rng(0)
    for runs, units in ((1, 8), (3, 1), (1, 1)):
        fitted = fit_mixed(cells(random, runs, units, 0.02, 0.01, 0.03, 0.04, folds=folds))
        assert isinstance(fitted, Mixed)
        assert fitted.df == folds - 1
        assert 0.02 < fitted.spread < 0.1


def test_a_large_study_has_a_p() -> None:
    """450 patients and 9 repeats."""
    fitted = fit_mixed(cells(np.random.default_rng(0), 9, 450, 0.02, 0.01, 0.03, 0.04))
    assert isinstance(fitted, Mixed)
    assert (fitted.run**0.5, fitted.unit**0.5, fitted.rest**0.5) == pytest.approx((0.01, 0.03, 0.04), rel=0.4)
    assert fitted.p < 0.05


@pytest.mark.parametrize(
    ("runs", "units", "rest", "reason"), [(2, 30, 0.01, "runs"), (5, 4, 0.01, "units"), (5, 30, 0, "equal")]
)
def test_says_why_there_is_nothing_to_fit(runs: int, units: int, rest: float, reason: str) -> None:
    assert fit_mixed(cells(np.random.default_rng(0), runs, units, 0.1, 0, 0, rest)) == reason


def test_where_runs_do_not_differ_it_is_students_t_over_units() -> None:
    """Equal differences in each run: the units are all there is."""
    units = np.random.default_rng(1).normal(0.01, 0.03, 20)
    noise = np.random.default_rng(2).normal(0, 1e-3, (1, 4, 20))
    fitted, expected = fit_mixed(as_cells(units + noise)), stats.ttest_1samp(units, 0)
    assert isinstance(fitted, Mixed)
    assert fitted.p == pytest.approx(expected.pvalue, rel=0.02)


def test_too_few_runs_leave_the_bootstrap_alone() -> None:
    table = case_table(studied({"a": 0.0, "b": 0.0}, 2, 20))
    row = compare(pairs(class_scores(table, "dice"), "a", "b"), SECTION)
    assert (row["method"], row["p"], row["low"]) == ("bootstrap", None, row["bootstrap_low"])
    row = compare(pairs(class_scores(case_table(studied({"a": 0.0, "b": 0.0}, 3, 20)), "dice"), "a", "b"), SECTION)
    assert row["method"] == "mixed model"
    assert row["p"] is not None


def test_the_bootstraps_interval_is_as_wide_as_students_t() -> None:
    values = np.random.default_rng(5).normal(0.01, 0.03, 15)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    low, high = bootstrap_interval(values, np.arange(15), SECTION.model_copy(update={"bootstrap": 20000}))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.0015)
    assert bootstrap_interval(values[:4], np.arange(4), SECTION) == (None, None)


def test_equal_arms_differ_by_nothing() -> None:
    runs = studied({"a": 0.0}, 3, 8)
    again = [(type(run)("b", run.repeat, None), record) for run, record in runs]
    row = compare(pairs(class_scores(case_table([*runs, *again]), "dice"), "a", "b"), SECTION)
    assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
    assert (row["superiority"], row["effect_size"], row["p"]) == (0.5, None, None)


def drawn_rows(better: np.ndarray) -> pd.DataFrame:
    """Arm `a` better than `b` by so much, (runs, cases)."""
    rows = [("b", run, f"c{case}", f"c{case}", "1", 0.5) for run, case in np.ndindex(better.shape)]
    rows += [("a", run, f"c{case}", f"c{case}", "1", 0.5 + better[run, case]) for run, case in np.ndindex(better.shape)]
    return table_of(rows)


def test_effect_size_and_superiority_by_hand() -> None:
    better = np.array([[0.1, 0.2, -0.1, 0.0, 0.1, 0.3], [0.3, 0.0, -0.1, 0.2, 0.1, 0.1]])
    row = compare(pairs(class_scores(drawn_rows(better), "dice"), "a", "b"), SECTION)
    assert row["difference"] == pytest.approx(0.1)
    assert row["effect_size"] == pytest.approx(0.1 / better.std(ddof=1))
    assert row["superiority"] == pytest.approx(9 / 12)


def test_effect_size_and_superiority_do_not_grow_with_repeats() -> None:
    random = np.random.default_rng(0)
    few, many = (
        compare(pairs(class_scores(drawn_rows(0.03 + random.normal(0, 0.05, shape)), "dice"), "a", "b"), SECTION)
        for shape in ((3, 100), (30, 100))
    )
    assert few["effect_size"] == pytest.approx(0.6, abs=0.15)
    assert many["effect_size"] == pytest.approx(0.6, abs=0.1)
    assert many["superiority"] == pytest.approx(stats.norm.cdf(0.6), abs=0.03)


def test_runs_of_several_folds_are_tested_by_their_folds_means() -> None:
    table = drawn_rows(0.03 + np.random.default_rng(0).normal(0, 0.05, (12, 10)))
    split = compare(pairs(class_scores(table, "dice"), "a", "b"), SECTION)
    table["fold"] = table["repeat"] % 3
    folds = compare(pairs(class_scores(table, "dice"), "a", "b"), SECTION)
    assert split["wilcoxon_runs_p"] is not None
    assert folds["wilcoxon_runs_p"] is None  # three folds are too few
    assert (split["folds"], folds["folds"]) == (1, 3)


def test_a_single_test_case_leaves_its_results(tmp_path: Path) -> None:
    config = CONFIG.override({"study.arms": {"a": {}, "b": {}}, "study.references": ["b"]})
    config = config.override({"paths.study": str(tmp_path / "study")})
    write_results(config, studied({"a": 0.0, "b": 0.0}, 3, 1))
    table = pd.read_csv(tmp_path / "study" / "comparisons.csv")
    assert table["low"].isna().all()
    result = read(tmp_path / "study")
    assert result is not None
    assert set(draw_study(result)) == {"forest", "paired"}


def study_of(runs: Any, arms: dict[str, float]) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    section = {"study.arms": {name: {} for name in arms}, "study.references": ["cnn", "random"]}
    result = results(CONFIG.override(section), runs)
    return result.summary, {"study": result.cases, "comparisons": result.comparisons}


def test_volumes_can_be_compared_in_the_place_of_cases(tmp_path: Path) -> None:
    """Arm `a` is better in every slice and worse in every volume."""
    better, worse = studied({"a": 0.1, "b": 0.0}, 4, 8, slices=3), studied({"a": -0.1, "b": 0.0}, 4, 8)
    runs = [
        (run, {**(record or {}), "volumes": (volumes or {})["rows"]})
        for (run, record), (_, volumes) in zip(better, worse, strict=True)
    ]
    config = CONFIG.override({"study.arms": {"a": {}, "b": {}}, "study.references": ["b"]})
    config = config.override({"paths.study": str(tmp_path / "study")})
    found = {}
    for per in ("case", "volume"):
        write_results(config.override({"study.per": per}), runs)
        result = read(tmp_path / "study")
        assert result is not None
        found[per] = result
    assert found["case"].comparisons["difference"].item() == pytest.approx(0.1, abs=0.03)
    assert found["volume"].comparisons["difference"].item() == pytest.approx(-0.1, abs=0.03)
    assert [found[per].comparisons["cases"].item() for per in found] == [24, 8]
    assert "Dice points against b" in found["case"].summary["verdicts"][0]
    assert "Dice points per volume against b" in found["volume"].summary["verdicts"][0]
    assert len(found["volume"].cases) == 3 * len(found["volume"].volumes)
    means = {per: result.runs.groupby("arm")["dice"].mean() for per, result in found.items()}
    assert means["case"]["a"] - means["case"]["b"] == pytest.approx(0.1, abs=0.03)
    assert means["volume"]["a"] - means["volume"]["b"] == pytest.approx(-0.1, abs=0.03)
    charts = {per: draw_study(result)["paired"] for per, result in found.items()}
    assert charts["case"].count("<use") > 2 * charts["volume"].count("<use") > 0


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
ROW |= {"runs": 12, "unit": "group", "groups": 30, "cases": 36, "reason": None, "per": "case"}
NO_P = {"p": None, "p_holm": None}


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, "12 paired runs: not distinguishable from random"),
        ({"p": 0.01, "p_holm": 0.02}, "better than random"),
        ({"p": 0.01, "p_holm": 0.02, "difference": -0.004}, "worse than random"),
        ({"p": 0.01, "p_holm": 0.06}, "not distinguishable from random once all arms are counted (Holm's correction)"),
        (NO_P | {"runs": 1, "reason": "runs"}, "1 paired run: too few runs to say whether it differs from random"),
        ({"p": np.nan, "p_holm": np.nan, "reason": "runs"}, "too few runs to say whether it differs from random"),
        (NO_P | {"reason": "units"}, "12 paired runs: too few patients to say whether it differs from random"),
        (
            NO_P | {"reason": "units", "unit": "block", "groups": 1},
            "too few blocks of slices to say whether it differs from random, of this one patient",
        ),
        (
            NO_P | {"reason": "equal", "difference": 0.0},
            "no difference from random throughout, of which there is nothing to test",
        ),
        ({"p": 0.01, "p_holm": 0.02, "unit": "block", "groups": 1}, "better than random, of this one patient"),
        (
            {"p": 0.01, "p_holm": 0.02, "unit": "case", "groups": 3},
            "better than random, of these 3 patients; cases of one patient resemble each other, so the interval is too "
            "narrow",
        ),
    ],
)
def test_verdicts(changes: dict[str, Any], end: str) -> None:
    assert verdict(ROW | changes, "dice", 0.95).endswith(end)


def test_a_verdict_in_full() -> None:
    assert verdict(ROW, "dice", 0.95) == (
        "llm: +0.4 Dice points against random, 95 % interval -0.1 to 0.9, 12 paired runs: "
        "not distinguishable from random"
    )
    of_volumes = ROW | {"per": "volume", "unit": "case", "groups": 3, "cases": 6}
    assert verdict(of_volumes, "dice", 0.95) == (
        "llm: +0.4 Dice points per volume against random, 95 % interval -0.1 to 0.9, 12 paired runs: not "
        "distinguishable from random, of these 3 patients; volumes of one patient resemble each other, so the interval "
        "is too narrow"
    )
    assert str(caution(of_volumes)).startswith("The 6 volumes are of 3 patients, too few to resample")
    assert caution(ROW) is None
    assert "too few to resample" in str(caution(ROW | {"unit": "case", "groups": 3}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runs", "units", "folds", "fold"),
    [(5, 36, 1, 0.0), (12, 20, 1, 0.0), (2, 12, 5, 0.0), (6, 20, 3, 0.015)],
)
def test_intervals_cover_and_errors_are_as_often_as_they_say(runs: int, units: int, folds: int, fold: float) -> None:
    """Of 1000 studies of a known effect; without an effect, one in twenty is found all the same."""
    random, effect, covered, found = np.random.default_rng(0), 0.01, 0, 0
    for _ in range(1000):
        fitted = fit_mixed(cells(random, runs, units, effect, 0.01, 0.03, 0.04, folds=folds, fold=fold))
        assert isinstance(fitted, Mixed)
        low, high = fitted.interval(0.95)
        covered += low <= effect <= high
        found += 2 * stats.t.sf(abs(fitted.effect - effect) / fitted.error, fitted.df) < 0.05
    assert covered / 1000 == pytest.approx(0.95, abs=0.02)
    assert found / 1000 == pytest.approx(0.05, abs=0.015)


@pytest.mark.slow
@pytest.mark.parametrize(("units", "within"), [(5, 0.04), (8, 0.02), (12, 0.02), (36, 0.02)])
def test_the_bootstrap_covers_over_units(units: int, within: float) -> None:
    """The trained networks given: no spread between runs."""
    random, section, covered = np.random.default_rng(0), SECTION.model_copy(update={"bootstrap": 1000}), 0
    for _ in range(1000):
        low, high = bootstrap_interval(0.01 + random.normal(0, 0.03, units), np.arange(units), section)
        assert low is not None
        assert high is not None
        covered += low <= 0.01 <= high
    assert covered / 1000 == pytest.approx(0.95, abs=within)
