"""Cross-validation by hand: every case once, whatever the sizes of the folds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llm4seg.config import Config
from llm4seg.study.cross_validation import cross_validation
from llm4seg.study.results import case_table, read, results, write
from tests.import_graph import ROOT
from tests.study_factory import folded, studied

CONFIG = Config.load(ROOT / "params.yaml").override(
    {"study.repeats": 1, "study.folds": [0, 1, 2], "study.arms": {"a": {}}, "study.references": ["a"]}
)


def test_means_over_all_cases_and_of_each_fold() -> None:
    table = case_table(folded({"a": 0.0}, 3, 4))
    table = table[~table["case"].isin(["0-p0-0", "0-p1-0"])]  # folds of 2, 4 and 4 cases
    found = cross_validation(table, CONFIG.study, CONFIG.evaluation)
    assert found is not None
    assert (found["unit"], found["cases"], found["groups"], found["folds"]) == ("group", 10, 10, [0, 1, 2])
    of_cases = table.groupby(["fold", "case"])["dice"].mean()
    mean, one, two = found["rows"]
    assert (mean["class"], one["class"], two["class"]) == (None, "class 0", "class 1")
    assert mean["mean"] == pytest.approx(of_cases.mean(), abs=1e-6)
    assert mean["folds"] == pytest.approx(of_cases.groupby("fold").mean().tolist(), abs=1e-6)
    assert mean["low"] < mean["mean"] < mean["high"]
    assert mean["n"] == 10
    assert one["mean"] == pytest.approx(table[table["class"] == "class 0"]["dice"].mean(), abs=1e-6)


def test_repeats_of_a_case_are_one_score_and_a_missing_fold_has_none() -> None:
    runs = [run for run in folded({"a": 0.0}, 3, 4) if run[0].fold != 1]
    table = case_table(runs)
    twice = pd.concat([table, table.assign(repeat=1, dice=table["dice"] + 0.1)])
    found = cross_validation(twice, CONFIG.study, CONFIG.evaluation)
    assert found is not None
    mean = found["rows"][0]
    assert (mean["n"], mean["folds"][1]) == (8, None)
    assert mean["mean"] == pytest.approx(table["dice"].mean() + 0.05, abs=1e-6)


def test_a_class_without_a_score_counts_nowhere() -> None:
    table = case_table(folded({"a": 0.0}, 3, 2)).reset_index(drop=True)
    absent = (table["case"] == "0-p0-0") & (table["class"] == "class 1")
    found = cross_validation(table.assign(dice=table["dice"].mask(absent)), CONFIG.study, CONFIG.evaluation)
    assert found is not None
    assert [row["n"] for row in found["rows"]] == [6, 6, 5]
    kept = table[~absent].groupby("case")["dice"].mean()
    assert found["rows"][0]["mean"] == pytest.approx(np.mean(kept), abs=1e-6)


def test_without_folds_there_is_none() -> None:
    study = CONFIG.override({"study.folds": []}).study
    assert cross_validation(case_table(studied({"a": 0.0}, 2, 3)), study, CONFIG.evaluation) is None


def test_a_study_of_one_arm_is_written_and_read(tmp_path: Path) -> None:
    write(tmp_path / "study", results(CONFIG, folded({"a": 0.0}, 3, 4)))
    result = read(tmp_path / "study")
    assert result is not None
    assert (result.summary["verdicts"], len(result.comparisons)) == ([], 0)
    assert len(result.summary["cross_validation"]["rows"]) == 3
