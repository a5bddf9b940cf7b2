"""The comparison over data sets: which test is used, against SciPy's own, and what the verdict says."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llm4seg.config import Config
from llm4seg.study.comparisons import compare_all
from llm4seg.study.over_data import compare_over_data, verdict_over_data
from llm4seg.study.results import case_table
from tests.study_factory import studied
from tests.tiny import PARAMS

EFFECTS = {"cnn": 0.0, "llm": 0.05}
CONFIG = Config.load(PARAMS).override(
    {"evaluation.bootstrap": 100, "study.arms": {"cnn": {}, "llm": {}}, "study.references": ["cnn"]}
)


def compared(data_sets: int, effects: dict[str, float] = EFFECTS, repeats: int = 3) -> tuple[Any, list[float]]:
    """The row over data sets of one arm, and its mean difference on each by hand."""
    tables = [
        case_table(studied(effects, repeats, 8, seed=seed)).assign(data=f"data {seed}", block=None)
        for seed in range(data_sets)
    ]
    table = pd.concat(tables, ignore_index=True)
    each = compare_all(table, CONFIG.study, CONFIG.evaluation)
    found = compare_over_data(table, each, CONFIG.study, 0.95)
    means = [one[one["arm"] == "llm"]["dice"].mean() - one[one["arm"] == "cnn"]["dice"].mean() for one in tables]
    return (found.iloc[0] if len(found) else None), means


@pytest.mark.parametrize("data_sets", [5, 6, 8])
def test_of_five_data_sets_or_more_it_is_wilcoxons_test(data_sets: int) -> None:
    row, means = compared(data_sets)
    assert row["method"] == "wilcoxon"
    assert row["difference"] == pytest.approx(np.mean(means), abs=1e-6)
    assert row["p"] == pytest.approx(stats.wilcoxon(means).pvalue) == pytest.approx(2 / 2**data_sets)
    assert (row["smallest"], row["largest"]) == pytest.approx((min(means), max(means)), abs=1e-6)
    assert np.isnan(row["low"])
    text = verdict_over_data(row, "dice", 0.95)
    assert text.startswith(f"llm: +{100 * np.mean(means):.1f} Dice points against cnn over {data_sets} data sets (+")
    assert text.endswith("better than cnn" if data_sets > 5 else "0.0625: not distinguishable from cnn")
    assert "Wilcoxon's signed-rank test over data sets, p " in text


@pytest.mark.parametrize("data_sets", [2, 3, 4])
def test_of_fewer_it_is_the_mixed_model_with_data_sets_as_random(data_sets: int) -> None:
    row, means = compared(data_sets)
    expected = stats.ttest_1samp(means, 0)
    assert row["method"] == "mixed model"
    assert (row["difference"], row["p"]) == pytest.approx((np.mean(means), expected.pvalue), rel=1e-3)
    ends = expected.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high), rel=1e-3, abs=1e-6)
    assert "mixed model with the data set as a random effect, 95 % interval" in verdict_over_data(row, "dice", 0.95)


def test_one_data_set_is_no_comparison_over_data_sets() -> None:
    assert compared(1)[0] is None


def test_too_few_runs_and_no_difference_are_said() -> None:
    row, _ = compared(2, repeats=1)
    assert verdict_over_data(row, "dice", 0.95).endswith("too few runs to say whether it differs from cnn")
    equal = {**row.to_dict(), "data_sets": 5, "method": "wilcoxon", "p": None, "reason": "equal"}
    assert "all differences are equal" in verdict_over_data(equal, "dice", 0.95)


def test_holm_counts_the_arms() -> None:
    config = CONFIG.override({"study.arms": {"cnn": {}, "llm": {}, "mlp": {}}})
    tables = [
        case_table(studied({"cnn": 0.0, "llm": 0.05, "mlp": 0.05}, 3, 8, seed=seed)).assign(data=f"{seed}", block=None)
        for seed in range(6)
    ]
    table = pd.concat(tables, ignore_index=True)
    each = compare_all(table, config.study, config.evaluation)
    found = compare_over_data(table, each, config.study, 0.95)
    assert found["p"].tolist() == [2 / 64, 2 / 64]
    assert found["p_holm"].tolist() == [4 / 64, 4 / 64]
    assert verdict_over_data(found.iloc[0], "dice", 0.95).endswith(
        "not distinguishable from cnn once all arms are counted (Holm's correction)"
    )
