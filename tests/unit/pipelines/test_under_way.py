"""Stages whose runs are under way in another process end before any work, with nothing of the other deleted."""

from collections.abc import Callable

import pytest

from llm4seg.cluster.run_lock import RunUnderWay, run_lock
from llm4seg.cluster.runs import run_name
from llm4seg.config import Config
from pipelines.search import search
from pipelines.study import study
from pipelines.train import train

ARMS = {"cnn": "none", "llm": "frozen", "mlp": "mlp", "trained": "trained"}  # and their presets


def refused(config: Config, name: str, stage: Callable[[Config], None]) -> None:
    """Expect that a stage is refused while a run is under way."""
    checkpoint = config.paths.runs / name / "checkpoint_of_the_other"
    checkpoint.mkdir(parents=True)
    before = set(config.paths.runs.parent.rglob("*"))
    with run_lock(config, [name]), pytest.raises(RunUnderWay):
        stage(config)
    assert set(config.paths.runs.parent.rglob("*")) == before
    assert checkpoint.exists()


@pytest.mark.parametrize("launcher", ["ray", "process"])
def test_a_training(config: Config, launcher: str) -> None:
    config = config.override({"cluster.launcher": launcher})
    refused(config, run_name(config), train)


def test_a_search(config: Config) -> None:
    from llm4seg.search.driver import search_name

    config = config.override({"search.trials": 2, "search.space": {"optimizer.lr": [0.001, 0.01]}})
    refused(config, search_name(config), search)


def studying(config: Config, launcher: str, *arms: str) -> Config:
    chosen = {name: {"preset": ARMS[name]} for name in arms}
    study = {"study.repeats": 1, "study.arms": chosen, "study.references": [arms[0]]}
    return config.override(study | {"cluster.launcher": launcher})


@pytest.mark.parametrize("launcher", ["ray", "process"])
def test_a_study_with_a_run_of_another_study(config: Config, launcher: str) -> None:
    from llm4seg.study.runner import checkpoints_name, named_runs

    config = studying(config, launcher, "cnn", "llm")
    refused(config, checkpoints_name(named_runs(config)[1].name), study)


def test_studies_of_other_arms_can_be_under_way_together(config: Config) -> None:
    from llm4seg.study.runner import named_runs, names_in_storage

    for launcher in ("ray", "process"):
        first, second = studying(config, launcher, "cnn", "llm"), studying(config, launcher, "mlp", "trained")
        names = [names_in_storage(one, named_runs(one)) for one in (first, second)]
        with run_lock(first, names[0]), run_lock(second, names[1]):
            pass
