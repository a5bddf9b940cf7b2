"""What a study can find: against the power of tests that are known in closed form."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from llm4seg.config import Config
from llm4seg.config.schema import Spread
from llm4seg.data.split import Split, write_split
from llm4seg.datasets.cases import slices
from llm4seg.study import power
from llm4seg.study.mixed_model import Mixed, fit_mixed
from llm4seg.study.plan import design, observed_spread, power_analysis
from llm4seg.study.results import case_table, compared
from tests.finished_run import config_at, raw_case, write_cases
from tests.study_factory import as_cells, studied

SPREAD = Spread(fold=0.015, run=0.01, case=0.03, rest=0.04)


def test_folds_are_students_t_over_their_means() -> None:
    tables = power.simulate(Spread(fold=0.05, run=0, case=0, rest=1e-6), 1, 30, 10, 4000, 0)
    mean, error, df = power.test(tables)
    expected = stats.ttest_1samp(tables[7].mean(axis=(1, 2)), 0)
    assert mean[7] / error[7] == pytest.approx(expected.statistic)
    assert df[7] == 29
    known = TTestPower().power(0.02 / 0.05, nobs=30, alpha=0.05)
    assert power.power(power.test(tables), 0.02, 0.05) == pytest.approx(known, abs=0.025)
    smallest = 0.05 * TTestPower().solve_power(nobs=30, alpha=0.05, power=0.8)
    assert power.detectable(power.test(tables), 0.8, 0.05) == pytest.approx(smallest, rel=0.05)


def test_many_cases_leave_students_t_over_runs() -> None:
    tables = power.simulate(Spread(fold=0, run=0.01, case=0, rest=0.001), 6, 1, 200, 3000, 0)
    smallest = 0.01 * TTestPower().solve_power(nobs=6, alpha=0.05, power=0.8)
    assert power.detectable(power.test(tables), 0.8, 0.05) == pytest.approx(smallest, rel=0.06)


@pytest.mark.parametrize(("repeats", "folds", "units"), [(5, 1, 36), (3, 5, 10), (12, 1, 20), (6, 3, 20), (1, 5, 20)])
def test_finds_nothing_where_there_is_nothing(repeats: int, folds: int, units: int) -> None:
    tables = power.simulate(SPREAD, repeats, folds, units, 6000, 0)
    assert power.power(power.test(tables), 0, 0.05) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(("repeats", "folds"), [(5, 1), (3, 4)])
def test_tests_as_the_mixed_model_does(repeats: int, folds: int) -> None:
    tables = power.simulate(SPREAD, repeats, folds, 36, 20, 3)
    for table, mean, error in zip(tables, *power.test(tables)[:2], strict=True):
        fitted = fit_mixed(as_cells(table))
        assert isinstance(fitted, Mixed)
        assert (fitted.effect, fitted.error) == pytest.approx((mean, error), rel=0.05)


def test_repeats_needed_for_an_effect_find_it_and_fewer_do_not() -> None:
    spread = Spread(fold=0, run=0.02, case=0.005, rest=0.02)
    needed = power.repeats_needed(spread, 1, 40, 0.015, 0.8, 0.05, 2000, 0)
    assert needed is not None
    assert power.power(power.test(power.simulate(spread, needed, 1, 40, 2000, 0)), 0.015, 0.05) >= 0.8
    assert power.power(power.test(power.simulate(spread, needed // 2, 1, 40, 2000, 0)), 0.015, 0.05) < 0.8


def test_no_number_of_repeats_makes_up_for_too_few_cases() -> None:
    assert power.repeats_needed(SPREAD, 1, 8, 0.01, 0.8, 0.05, 300, 0) is None


@pytest.mark.parametrize(("folds", "fewest"), [(1, 3), (2, 2), (3, 1), (5, 1)])
def test_no_fewer_runs_are_planned_than_a_study_can_test(folds: int, fewest: int) -> None:
    assert power.repeats_needed(SPREAD, folds, 40, 10.0, 0.8, 0.05, 100, 0) == fewest
    assert power.can_test(fewest, folds, 40)
    assert not power.can_test(64, 1, 4)
    assert power.repeats_needed(SPREAD, 1, 4, 10.0, 0.8, 0.05, 100, 0) is None


def test_plan_uses_the_spread_that_finished_runs_have(workspace: Config) -> None:
    config = workspace.override({"study.repeats": 4})
    runs = studied({"cnn": 0.0, "random": 0.0, "llm": 0.05}, 4, 30)
    found = compared(config, case_table(runs))
    assumed = config.study.plan.spread
    spread = observed_spread(found, assumed)
    assert spread is not None
    # the drawn ones: 0.01 of each arm's run, and 0.02 of each class, of which a case has two
    assert spread.run == pytest.approx(0.01 * 2**0.5, rel=0.7)
    assert spread.rest == pytest.approx(0.02, rel=0.1)
    assert spread.fold == assumed.fold  # of which one split says nothing
    other = pd.concat([found, found.assign(data="other", sd_run=1.0, sd_unit=1.0, sd_rest=1.0)])
    assert observed_spread(other, assumed) == spread
    assert design(config, found).spread == spread
    assert design(config, found.iloc[:0]).spread == config.study.plan.spread


def test_a_plan_for_scores_per_volume_counts_volumes(tmp_path: Path) -> None:
    config = config_at(
        tmp_path, {"data.size": [16, 16], "study.repeats": 4, "study.plan.simulations": 100, "split.block": 1}
    )
    drawn = np.random.default_rng(0).integers(0, 2, (4, 16, 16, 3))
    cases = [one for k, labels in enumerate(drawn) for one in slices(raw_case(f"v{k}", labels))]
    data = write_cases(config, cases, "a")
    write_split(config.paths.split, Split("by hand", 0, (), (), tuple(data.cases), (), ()))
    found = {per: design(config.override({"study.per": per}), pd.DataFrame()) for per in ("case", "volume")}
    assert {per: (of.units, of.unit) for per, of in found.items()} == {"case": (12, "block"), "volume": (4, "case")}
    assert "on 4 test volumes find" in list(power_analysis(config.override({"study.per": "volume"}), []))[1]


def test_plan_in_words(workspace: Config) -> None:
    config = workspace.override({"study.repeats": 4, "study.plan.simulations": 200})
    lines = list(power_analysis(config, []))
    assert "assumed (study.plan.spread)" in lines[0]
    assert lines[1] == (
        "4 x 1 paired runs on 4 test cases find no difference, however large: the comparison needs 3 runs and 5 cases"
    )
    assert lines[2].endswith("it needs more cases, not more seeds")
    lines = list(power_analysis(config.override({"study.folds": [0, 1, 2, 3]}), []))
    assert "between folds" in lines[0]
    assert "4 x 4 paired runs on 2 test patients find a difference of" in lines[1]
    assert "(the first of 6 arms in Holm's correction)" in lines[1]
    assert lines[2].startswith("a difference of 0.01 takes ")


def test_simulated_tables_have_the_spread_asked_for() -> None:
    tables = power.simulate(SPREAD, 40, 1, 40, 20, 0)
    assert tables.shape == (20, 1, 40, 40)
    assert np.std(tables.mean(axis=3)[:, 0] - tables.mean(axis=(1, 2, 3))[:, None]) == pytest.approx(0.0118, rel=0.1)
