"""Designs that a study could have: costs by hand, and what they find against closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from llm4seg.config import Config
from llm4seg.config.schema import Spread
from llm4seg.study import designs, power
from llm4seg.study.mixed_model import Mixed, fit_mixed
from llm4seg.study.plan import design, run_seconds
from llm4seg.study.results import case_table, compared, compared_by_metric
from tests.study_factory import cells, folded, studied

SPREAD = Spread(fold=0.015, run=0.01, case=0.03, rest=0.04)
SECONDS = {"cnn": 100.0, "random": 200.0, "llm": 400.0}


@pytest.fixture
def studying(workspace: Config) -> Config:
    changes = {"study.repeats": 4, "study.plan.simulations": 400, "study.only": [*SECONDS]}
    return workspace.override(changes)


@pytest.mark.parametrize(("repeats", "folds", "units"), [(5, 1, 6), (8, 1, 40), (2, 4, 10)])
def test_what_is_drawn_is_what_whole_tables_give(repeats: int, folds: int, units: int) -> None:
    tables = power.test(power.simulate(SPREAD, repeats, folds, units, 3000, 0))
    drawn = power.draw(SPREAD, repeats, folds, units, 3000, 1)
    for whole, short in zip(tables, drawn, strict=True):
        assert stats.ks_2samp(whole, short).pvalue > 0.001
    assert power.power(drawn, 0.03, 0.05) == pytest.approx(power.power(tables, 0.03, 0.05), abs=0.04)


def test_units_needed_are_those_of_students_t_over_units() -> None:
    """With nothing but the units' spread, all repeats are one."""
    spread = Spread(fold=0, run=0, case=0.03, rest=1e-6)
    exact = TTestPower().solve_power(0.01 / 0.03, alpha=0.05, power=0.8)
    needed = power.units_needed(spread, 5, 1, 0.01, 0.8, 0.05, 4000, 0)
    assert needed is not None
    assert 0.95 * exact < needed < 1.15 * exact
    assert power.units_needed(SPREAD, 3, 1, 0.001, 0.8, 0.05, 300, 0) is None  # runs differ by more, whatever the units


def test_costs_of_designs_by_hand(studying: Config) -> None:
    found = designs.candidates(studying, pd.DataFrame(), SECONDS)
    as_it_is = [one for one in found if one.how == "as it is"]
    assert [(one.arms, one.repeats, one.runs) for one in as_it_is] == [(3, 4, 12), (2, 4, 8)]
    assert as_it_is[0].hours == pytest.approx(4 * 700 / 3600)
    assert as_it_is[1].hours == pytest.approx(4 * (100 + 400) / 3600)  # the reference and the slowest other arm
    for one in found:
        assert one.hours * 3600 == pytest.approx(one.repeats * one.folds * {3: 700, 2: 500}[one.arms])


def test_the_cheapest_design_is_one_on_the_data_that_are_there(studying: Config) -> None:
    config = studying.override({"study.plan.effect": 0.05})
    found = designs.candidates(config, pd.DataFrame(), SECONDS)
    best = designs.cheapest(found, 0.05)
    assert best is not None
    assert best.finds is not None
    assert best.finds <= 0.05
    meeting = [one.hours for one in found if not one.more_data and one.finds is not None and one.finds <= 0.05]
    assert best.hours == min(meeting)
    free = designs.Candidate("more test data", 2, 3, 1, 900, 0.0, 0.001, more_data=True)
    assert designs.cheapest([free, best], 0.05) is best
    of = design(config, pd.DataFrame())
    table = designs.proposal(config, of, found)
    assert [*table.columns[0].cells].count("->") == 1
    assert next(designs.conclusion(config, of, found)).startswith("-> the cheapest that finds 0.05: ")


def test_where_no_design_is_enough_it_says_by_how_much(studying: Config) -> None:
    found = designs.candidates(studying, pd.DataFrame(), SECONDS)
    assert designs.cheapest(found, 0.01) is None
    known = [one.finds for one in found if one.finds is not None and not one.more_data]
    line = next(designs.conclusion(studying, design(studying, pd.DataFrame()), found))
    assert line.startswith("none on these data finds 0.01: the nearest (")
    assert line.endswith(f"finds {min(known):.3g}, {min(known) / 0.01:.1f} times as much")


def test_more_test_data_are_as_many_as_the_effect_needs(studying: Config) -> None:
    """The drawn power of the row itself, by whole tables."""
    config = studying.override({"study.plan.simulations": 2000, "study.plan.effect": 0.02})
    (row, *_) = [one for one in designs.candidates(config, pd.DataFrame(), SECONDS) if one.more_data]
    tables = power.test(power.simulate(config.study.plan.spread, row.repeats, 1, row.units, 2000, 5))
    assert power.power(tables, 0.02, 0.05 / 2) == pytest.approx(0.8, abs=0.06)


def test_more_folds_find_less_and_fewer_arms_cost_less(studying: Config) -> None:
    found = {str(one): one for one in designs.candidates(studying, pd.DataFrame(), SECONDS)}
    whole, split = (found[f"3 arms, {how}"] for how in ("5 of 5 folds", "more repeats"))
    assert whole.finds is not None
    assert split.finds is None  # one split tests four cases, too few for any test
    assert whole.folds == 5
    assert found["2 arms, 5 of 5 folds"].runs * 3 == 2 * whole.runs


@pytest.mark.parametrize("folds", [1, 4])
def test_the_standard_error_is_that_of_the_mixed_model(folds: int) -> None:
    table = cells(np.random.default_rng(1), 4, 9, 0.02, 0.02, 0.03, 0.04, folds=folds, fold=0.05)
    fitted = fit_mixed(table)
    assert isinstance(fitted, Mixed)
    names = {"sd_run": fitted.run, "sd_unit": fitted.unit, "sd_rest": fitted.rest, "sd_fold": fitted.fold}
    row = {name: np.nan if value is None else value**0.5 for name, value in names.items()}
    row |= {"runs": 4 * folds, "units": 9 * folds, "folds": folds}
    assert designs.standard_error(pd.DataFrame([row]))[0] == pytest.approx(fitted.error, rel=0.02)


def test_seconds_of_a_run_are_those_of_finished_ones(studying: Config) -> None:
    runs = studied(dict.fromkeys(SECONDS, 0.0), 2, 5)
    first = runs[0][1]
    assert first is not None
    first["seconds"] = 90.0
    assert run_seconds(studying, runs) == {"cnn": 75.0, "random": 60.0, "llm": 60.0}


def test_the_metric_with_less_noise_is_the_more_sensitive(studying: Config) -> None:
    random, runs = np.random.default_rng(0), studied({"cnn": 0.0, "random": 0.0, "llm": 0.02}, 4, 20)
    for run, record in runs:
        assert record is not None
        for row in record["rows"]:
            row["iou"] = 0.5 + (0.02 if run.arm == "llm" else 0.0) + float(random.normal(0, 0.005))
    by_metric = compared_by_metric(studying, runs)
    assert set(by_metric) == {"dice", "iou"}
    (line,) = designs.sensitivity(by_metric)
    values = dict(part.rsplit(" ", 1) for part in line.split(": ", 1)[1].split(" (")[0].split(", "))
    assert float(values["IoU"]) > float(values["Dice"])
    pd.testing.assert_frame_equal(by_metric["dice"], compared(studying, case_table(runs)))
    assert list(designs.sensitivity({"dice": by_metric["dice"]})) == []


def test_folds_of_finished_runs_are_planned_with_their_spread(studying: Config) -> None:
    runs = folded(dict.fromkeys(SECONDS, 0.0), 4, 8)
    config = studying.override({"study.folds": [0, 1, 2, 3], "study.repeats": 1})
    found = compared(config, case_table(runs))
    of = design(config, found)
    assert of.observed
    assert not any(one.how == "more repeats" for one in designs.candidates(config, found, SECONDS))
