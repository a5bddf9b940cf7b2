"""The search stage with a real Ray Tune: trials are trainings, and the best one's values become overrides."""

import signal
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from llm4seg.analysis import screen
from llm4seg.cluster.process_run import train_in_process
from llm4seg.config import Config
from llm4seg.config.schema import points
from llm4seg.utils.files import read_json
from pipelines.report import pictures
from pipelines.search import search
from tests.training import Stage, wait_until

EPOCHS = 2
SPACE = {"model.llm.layer": [0, 1], "optimizer.lr": [1e-9, 0.01], "engine.name": ["torch"]}


def searching(config: Config, **changes: object) -> Config:
    named = {f"search.{name}": value for name, value in changes.items()}
    base = {"search.trials": 9, "search.epochs": EPOCHS, "search.asha": None, "search.space": SPACE, "search.seed": 3}
    return config.override({**base, **named, "paths.search": str(config.paths.model.parent / "search")})


@pytest.fixture
def on_ray(config: Config, ray_address: str) -> Config:
    """The config of searches on a Ray that is there already; those of stages start their own."""
    return config.override({"cluster.address": ray_address})


def trials_of(config: Config) -> pd.DataFrame:
    return pd.read_csv(config.paths.search / "trials.csv")


def test_trials_are_trainings_and_the_best_is_what_train_will_use(on_ray: Config) -> None:
    """Two of four points cannot be trained: that is told, and the others go on, on the same workers."""
    space = {"model.llm.layer": [0, 1], "model.llm.pool": [1, 3]}
    config = searching(on_ray, algorithm="grid", space=space, objectives=["val_dice", "parameters", "latency"])
    search(config)
    trials, epochs = trials_of(config), pd.read_csv(config.paths.search / "epochs.csv")
    assert sorted(trials["status"]) == ["failed", "failed", "finished", "finished"]
    failed = trials[trials["status"] == "failed"]
    assert failed["error"].str.contains("model.llm.pool: found 3").all()
    assert set(failed["model.llm.pool"]) == {3}
    best = read_json(config.paths.search / "best.json")
    assert best in (points(config.search.space) or [])
    assert trials["val_dice"][0] == trials["val_dice"].max()
    assert best["model.llm.layer"] == trials["model.llm.layer"][0]
    assert trials["parameters"].nunique() == 1
    assert (trials["latency"].dropna() > 0).all()
    pictures(config)
    root = ElementTree.parse(config.paths.pictures / "search-layers.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    drawn = {one.name for one in config.paths.pictures.iterdir()}
    assert {f"search-{name}.svg" for name in ("layers", "slices", "curves", "pareto")} <= drawn
    assert not list(config.paths.runs.glob("*"))
    again = config.override({**best, "training.epochs": EPOCHS})
    history = train_in_process(again, "again", print).history
    rows = epochs[epochs["number"] == trials["number"][0]]
    assert [row["val_dice"] for row in history] == list(rows["val_dice"])
    assert [row["train_loss"] for row in history] == list(rows["train_loss"])


def test_trials_are_kept_until_their_results_are_written(
    on_ray: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full while results are written, say, costs no trial: a second start finds all of them."""
    config = searching(on_ray, trials=2, epochs=1, algorithm="random")
    with monkeypatch.context() as broken:
        broken.setattr("llm4seg.search.results.write_best", lambda folder, best: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            search(config)
    assert "search: 2/2" in capsys.readouterr().out
    before = set(config.paths.runs.glob("search-*-train-*/checkpoint_*"))
    assert len(before) == 2
    monkeypatch.setattr("llm4seg.search.driver.forget_search", lambda config, name: None)
    search(config)
    assert "search: 1/2" not in capsys.readouterr().out
    assert list(trials_of(config)["status"]) == ["finished"] * 2
    assert set(config.paths.runs.glob("search-*-train-*/checkpoint_*")) == before


def test_trials_that_fall_behind_are_stopped_early(on_ray: Config) -> None:
    space = {"optimizer.lr": [0.01, 1e-9, 1e-10, 1e-11], "model.llm.layer": [1], "engine.name": ["torch"]}
    config = searching(on_ray, epochs=6, algorithm="grid", asha={"grace": 1, "reduction": 2}, space=space)
    search(config)
    trials = trials_of(config)
    stopped = trials[trials["status"] == "stopped"]
    assert len(trials) == 4
    assert len(stopped) >= 1
    assert (stopped["epochs"] < 6).all()
    assert (trials[trials["status"] == "finished"]["epochs"] == 6).all()


@pytest.mark.slow
def test_the_driver_killed_and_run_again(config: Config, tmp_path: Path) -> None:
    """No finished trial is run again or lost, and none is run twice."""
    config = searching(config, trials=4, algorithm="tpe", epochs=3)
    stage = Stage("search", config, tmp_path)
    wait_until(lambda: "search: 1/4" in stage.shown() or stage.process.poll() is not None, "no trial ended")
    stage.kill()
    before = set(config.paths.runs.glob("search-*-train-*/checkpoint_*"))
    stage = Stage("search", config, tmp_path)
    wait_until(lambda: "search: 3/4" in stage.shown() or stage.process.poll() is not None, "no trial ended")
    stage.kill()
    # the finished trial's: had it been run again, or only gone on with, there would be a newer one in its place
    assert before & set(config.paths.runs.glob("search-*-train-*/checkpoint_*"))
    stage = Stage("search", config, tmp_path)
    assert stage.end() == 0, stage.shown()
    trials = trials_of(config)
    assert list(trials["status"]) == ["finished"] * 4
    assert len(trials[list(SPACE)].drop_duplicates()) == 4
    assert "search: 1/4" not in stage.shown()
    assert stage.left() == []


@pytest.mark.slow
def test_sigterm_stops_cleanly(config: Config, tmp_path: Path) -> None:
    config = searching(config, trials=4, algorithm="random")
    stage = Stage("search", config, tmp_path)
    wait_until(lambda: "search: 1/4" in stage.shown() or stage.process.poll() is not None, "no trial ended")
    stage.process.send_signal(signal.SIGTERM)
    assert stage.end() != 0
    assert not config.paths.search.exists()
    assert stage.left() == []


@pytest.mark.slow
def test_a_workers_death_costs_its_trial_nothing(config: Config, tmp_path: Path) -> None:
    """Within a trial, which is long enough to be met. Between two, Tune counts the death twice and gives one up."""
    config = searching(config, trials=2, algorithm="random", epochs=60)
    stage = Stage("search", config, tmp_path)
    wait_until(lambda: list(config.paths.runs.glob("search-*-train-*/checkpoint_*")), "no checkpoint")
    stage.actor("Trial").kill()
    assert stage.end() == 0, stage.shown()
    assert list(trials_of(config)["status"]) == ["finished"] * 2


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_warm_trials_begin_as_the_trained_cnn(on_ray: Config, workers: int) -> None:
    """With a learning rate of nothing, a trial's Dice is the CNN's."""
    space = {"model.llm.layer": [0, 1], "optimizer.lr": [1e-12], "engine.name": ["torch"]}
    changes = {"cluster.workers": workers, "optimizer.weight_decay": 0, "optimizer.schedule": "constant"}
    config = searching(on_ray.override(changes), warm_start=True, epochs=1, space=space)
    search(config)
    trials = trials_of(config)
    assert trials["val_dice"].nunique() == 1
    assert trials["val_dice"][0] > 0.05
    assert not list(config.paths.runs.glob("*"))


def test_a_screened_search_begins_with_the_layer_that_is_ranked_first(
    on_ray: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CNN alone is trained once, for the screen, and no trial starts from it."""
    rankings: list[list[int]] = []

    def ranking(table: pd.DataFrame, measures: Sequence[str]) -> list[int]:
        rankings.append(screen.ranking(table, measures))
        return rankings[-1]

    monkeypatch.setattr(screen, "RELIABLE", ("recovery",))
    monkeypatch.setattr("llm4seg.search.screened.ranking", ranking)
    config = searching(on_ray, trials=1, epochs=1, screen=True)
    search(config)
    trials = trials_of(config)
    assert [sorted(one) for one in rankings] == [[0, 1]]
    assert [*trials["model.llm.layer"]] == rankings[0][:1]
    assert not list(config.paths.runs.glob("*"))
