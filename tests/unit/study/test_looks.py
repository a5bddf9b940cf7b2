"""Looks at a study: what they compare and adjust, when they stop it, and that nothing more is run then."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llm4seg.config import Config
from llm4seg.report.study_charts import draw_study
from llm4seg.study.arms import PlannedRun, planned_runs
from llm4seg.study.comparisons import compare, holm
from llm4seg.study.looks import Look
from llm4seg.study.mixed_model import Mixed, fit_mixed
from llm4seg.study.pairs import class_scores, pairs
from llm4seg.study.plan import power_analysis
from llm4seg.study.results import Runs, case_table, read, results, write
from llm4seg.study.run_store import RunStore
from llm4seg.study.runner import NamedRun, jobs, named_runs
from llm4seg.study.stopping import any_due, due
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json
from pipelines.study import study
from tests.study_factory import studied

CLEAR, NONE = {"cnn": 0.0, "random": 0.2, "llm": 0.3}, {"cnn": 0.0, "random": 0.0, "llm": 0.0}
FEW = {"evaluation.bootstrap": 100, "study.only": ["cnn", "llm"]}  # fast


@pytest.fixture
def looking(config: Config) -> Config:
    changes = {"study.repeats": 6, "study.looks": [3, 6], "study.only": [*CLEAR], "evaluation.bootstrap": 500}
    return config.override(changes)


def after(runs: Runs, repeats: int) -> Runs:
    """The study once so many repeats have finished."""
    return [(run, record if run.repeat < repeats else None) for run, record in runs]


def test_a_look_compares_the_repeats_before_it_and_adjusts_them(looking: Config) -> None:
    runs = studied({"cnn": 0.0, "random": 0.0, "llm": 0.01}, 6, 12)
    result = results(looking, after(runs, 5))
    assert set(result.comparisons["runs"]) == {3}
    assert set(result.comparisons["look"]) == {"1 of 2"}
    row = result.comparisons[(result.comparisons["arm"] == "llm") & (result.comparisons["reference"] == "cnn")].iloc[0]
    table = case_table(after(runs, 3))
    fitted = fit_mixed(pairs(class_scores(table.assign(block=None), "dice"), "llm", "cnn"))
    assert isinstance(fitted, Mixed)
    level = 2 * stats.norm.sf(2.96259)  # the published boundary of the first of two looks
    half = stats.t.ppf(1 - level / 2, 2) * fitted.error  # three runs have two degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((fitted.effect - half, fitted.effect + half), rel=0.05)
    error = (row["high"] - row["low"]) / 2 / stats.t.ppf(1 - level / 2, 2)  # to all digits: its own search's
    p = 2 * stats.t.sf(abs(row["difference"]) / error, 2)
    assert row["p_unadjusted"] == pytest.approx(p, rel=0.05)
    assert row["p"] == pytest.approx(min(1.0, 4 * stats.norm.sf(0.5**0.5 * stats.norm.isf(p / 4))), rel=0.05)
    family = result.comparisons[result.comparisons["reference"] == "cnn"]
    assert family["p_holm"].tolist() == holm(family["p"]).tolist()


@pytest.mark.parametrize("p", [0.001, 0.0027, 0.0034, 0.2])
def test_an_interval_leaves_out_zero_where_p_is_significant(looking: Config, p: float) -> None:
    """Differences whose own p is this one; the first of two looks has the level 0.00305."""
    random = np.random.default_rng(0)
    drawn = random.normal(0, 1, (4, 1)) + random.normal(0, 1, (4, 30))
    drawn -= drawn.mean()
    rows = [(0, f"{r}/0", f"c{c}", f"c{c}", drawn[r, c]) for r in range(4) for c in range(30)]
    table = pd.DataFrame(rows, columns=["fold", "run", "case", "group", "difference"])
    table = table.assign(unit=table["group"], by="group")
    fitted = fit_mixed(table)
    assert isinstance(fitted, Mixed)
    shift = fitted.error * stats.t.isf(p / 2, 3)  # four runs have three degrees of freedom
    row = compare(table.assign(difference=table["difference"] + shift), looking.evaluation, Look(4, (0.5,), 2))
    assert row["p_unadjusted"] == pytest.approx(p, rel=0.08)
    assert (row["low"] > 0) == (row["p"] < 0.05) == (p < 0.00305)


def test_a_study_whose_every_arm_differs_stops(looking: Config) -> None:
    result = results(looking, after(studied(CLEAR, 6, 12), 3))
    assert result.summary["stopped"]
    assert (result.summary["look"], result.summary["skipped"], result.summary["missing"]) == (1, 9, 0)
    assert result.runs["state"].tolist() == ["finished"] * 9 + ["skipped"] * 9
    assert result.summary["about_looks"].startswith(
        "The study stopped at look 1 of 2, after 3 of 6 repeats: every arm can be told from cnn."
    )
    line = next(line for line in result.summary["verdicts"] if line.startswith("llm") and "against cnn" in line)
    assert line.endswith("3 paired runs at look 1 of 2: better than cnn")


@pytest.mark.parametrize(
    ("effects", "finished"),
    [(NONE, 3), ({**CLEAR, "random": 0.0}, 3), (CLEAR, 2)],
    ids=["none differs", "one does not differ", "before the look"],
)
def test_else_it_goes_on(looking: Config, effects: dict[str, float], finished: int) -> None:
    result = results(looking, after(studied(effects, 6, 12), finished))
    assert not result.summary["stopped"]
    assert result.summary["missing"] == 3 * (6 - finished)
    assert ("it goes on" if finished == 3 else "No look has been reached") in result.summary["about_looks"]
    assert result.comparisons.empty == (finished == 2)


def test_the_first_look_that_stops_counts_whatever_ran_afterwards(looking: Config) -> None:
    result = results(looking, studied(CLEAR, 6, 12))
    assert (result.summary["look"], result.summary["stopped"]) == (1, True)
    assert set(result.comparisons["runs"]) == {3}
    assert set(result.runs["state"]) == {"finished"}


def test_the_last_look_is_the_end_of_the_study(looking: Config) -> None:
    result = results(looking, studied(NONE, 6, 12))
    assert (result.summary["look"], result.summary["stopped"]) == (2, False)
    assert "goes on" not in result.summary["about_looks"]
    plain = results(looking.override({"study.looks": None}), studied(NONE, 6, 12))
    assert (result.comparisons["p"] >= plain.comparisons["p"]).all()
    assert "about_looks" not in plain.summary
    assert "look" not in plain.comparisons


def test_a_failed_run_holds_up_no_look_and_lets_none_stop(looking: Config) -> None:
    runs = after(studied(CLEAR, 6, 12), 3)
    failing: Runs = [
        (run, {"name": "x", "error": "it diverged"} if run.arm == "llm" and record else record) for run, record in runs
    ]
    summary = results(looking, failing).summary
    assert (summary["look"], summary["stopped"], summary["failed"]) == (1, False, 3)


def run_as_asked(config: Config, named: list[NamedRun], effects: dict[str, float]) -> list[PlannedRun]:
    """The runs that are made, each recorded with what `studied` draws."""
    drawn, made, store = dict(studied(effects, config.study.repeats, 12)), list[PlannedRun](), RunStore(config)
    for part in due(config, named):
        pending = jobs(config, part)
        for run in part:
            if run.name in pending:
                made.append(run.planned)
                store.put(run.name, {**(drawn[run.planned] or {}), "name": run.name})
    return made


@pytest.mark.parametrize(("effects", "repeats"), [(CLEAR, 3), (NONE, 6)], ids=["stops", "goes on"])
def test_runs_are_made_up_to_the_look_that_stops(looking: Config, effects: dict[str, float], repeats: int) -> None:
    config = looking.override(FEW)
    named = [NamedRun(run, config, f"run-{run.arm}-{run.repeat}") for run in planned_runs(config)]
    assert any_due(config, named)
    made = run_as_asked(config, named, effects)
    assert made == [run for run in planned_runs(config) if run.repeat < repeats]
    assert not any_due(config, named)
    assert run_as_asked(config, named, effects) == []


def test_without_looks_all_runs_are_due_at_once(looking: Config) -> None:
    config = looking.override({"study.looks": None})
    named = [NamedRun(run, config, f"run-{run.arm}-{run.repeat}") for run in planned_runs(config)]
    assert list(due(config, named)) == [named]


def test_looks_change_the_order_of_runs_and_no_name(looking: Config) -> None:
    folded = looking.override({"study.folds": [0, 1, 2], "study.repeats": 4, "study.looks": None})
    with_looks = folded.override({"study.looks": [2, 4]})
    plain, ordered = planned_runs(folded), planned_runs(with_looks)
    assert {*plain} == {*ordered}
    assert len(plain) == len(ordered)
    assert [run.repeat < 2 for run in ordered] == [True] * 18 + [False] * 18
    assert list(dict.fromkeys((run.repeat, run.fold) for run in ordered))[:3] == [(0, 0), (1, 1), (0, 1)]
    assert {run.planned: run.name for run in named_runs(folded)} == {
        run.planned: run.name for run in named_runs(with_looks)
    }


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({"study.repeats": 9, "study.looks": 3}, (3, 6, 9)),
        ({"study.repeats": 10, "study.looks": 3}, (4, 7, 10)),
        ({"study.repeats": 2, "study.folds": [0, 1], "study.looks": [2]}, (2,)),
        ({"study.repeats": 0, "study.looks": [3, 4]}, ()),
    ],
    ids=["even", "rounded", "once", "off"],
)
def test_when_looks_are(config: Config, changes: dict[str, Any], ends: tuple[int, ...]) -> None:
    assert config.override(changes).study.look_repeats == ends


@pytest.mark.parametrize(
    ("looks", "folds", "message"),
    [
        ([3, 4], [], r"study: looks: found \[3, 4\], allowed: rising numbers of repeats up to study.repeats \(5\)"),
        ([4, 3, 5], [], r"found \[4, 3, 5\], allowed: rising"),
        ([3, 3, 5], [], r"found \[3, 3, 5\], allowed: rising"),
        (6, [], "found 6, allowed: rising numbers .*, or how many looks, at most 5"),
        ([], [], r"found \[\], allowed: rising"),
        ([2, 5], [], "whose first has 2 paired runs, allowed: 3 or more, below which there is no p"),
        ([1, 5], [0, 1], "whose first has 2 paired runs"),
    ],
    ids=["end", "order", "twice", "many", "empty", "few", "few of folds"],
)
def test_looks_that_make_no_sense_are_refused(config: Config, looks: Any, folds: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.override({"study.repeats": 5, "study.folds": folds, "study.looks": looks})


def test_a_stopped_study_is_written_read_and_drawn(looking: Config, tmp_path: Path) -> None:
    write(tmp_path / "study", results(looking, after(studied(CLEAR, 6, 12), 3)))
    result = read(tmp_path / "study")
    assert result is not None
    assert result.summary["stopped"]
    assert set(draw_study(result)) == {"forest", "paired"}


def test_before_the_first_look_there_is_nothing_to_read(looking: Config, tmp_path: Path) -> None:
    write(tmp_path / "study", results(looking, after(studied(CLEAR, 6, 12), 2)))
    assert read(tmp_path / "study") is None


def test_a_plan_has_the_levels_of_looks(looking: Config) -> None:
    config = looking.override(
        {"study.folds": [0, 1, 2, 3], "study.only": ["cnn", "llm"], "study.plan.simulations": 400}
    )
    line = list(power_analysis(config, []))[-1]
    assert line.startswith("looks after 3, 6 repeats decide on an arm at p below 0.0031, 0.049: ")
    power = float(line.split("a power of ")[1].split("%")[0])
    assert 72 <= power <= 84


@pytest.mark.parametrize("launcher", ["process", "ray"])
def test_the_stage_runs_look_by_look_in_one_session(
    looking: Config, launcher: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And once it has stopped, running it again starts nothing."""
    config = looking.override({**FEW, "study.repeats": 7, "study.looks": [3, 5, 7], "cluster.launcher": launcher})
    sessions, made = list[int](), list[list[int]]()
    drawn = dict(studied({"cnn": 0.0, "llm": 0.05}, 7, 12))

    def run(config: Config, runs: list[NamedRun]) -> None:
        pending = jobs(config, runs)
        made.append(sorted(one.planned.repeat for one in runs if one.name in pending))
        for one in runs:
            RunStore(config).put(one.name, {**(drawn[one.planned] or {}), "name": one.name})

    @contextmanager
    def session(section: Any) -> Iterator[None]:
        sessions.append(1)
        yield

    monkeypatch.setattr("llm4seg.study.runner.run_in_process", run)
    monkeypatch.setattr("llm4seg.study.driver.run_on_ray", run)
    monkeypatch.setattr("llm4seg.cluster.session.ray_session", session)
    study(config)
    assert made == [[0, 0, 1, 1, 2, 2], [3, 3, 4, 4]]
    assert len(sessions) == (launcher == "ray")
    summary = read_json(config.paths.study / "study.json")
    assert (summary["stopped"], summary["look"], summary["finished"], summary["skipped"]) == (True, 2, 10, 4)
    assert summary["about_looks"] in caplog.text
    study(config)
    assert len(made) == 2
    assert len(sessions) == (launcher == "ray")
