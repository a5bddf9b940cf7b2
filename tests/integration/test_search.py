"""The search stage with a real Ray Tune: trials are trainings, and the best one's values become overrides."""

import pandas as pd
import pytest

from llm4seg.cluster.search import candidates
from llm4seg.config import Config
from llm4seg.files import read_json
from pipelines.search import search


@pytest.fixture
def searching(config: Config) -> Config:
    space = {"model.llm.layer": [0, 1], "optimizer.lr": [1e-9, 0.01], "engine.name": ["torch"]}
    folder = str(config.paths.model.parent / "search")
    return config.override(
        {"search.trials": 2, "search.epochs": 2, "search.space": space, "paths.search": folder, "search.seed": 3}
    )


def test_candidates_are_different_points_of_the_space(searching: Config) -> None:
    many = candidates(searching.override({"search.trials": 100}))
    assert len(many) == 4
    assert len({tuple(point.items()) for point in many}) == 4
    assert candidates(searching) == many[:2]
    assert len({str(candidates(searching.override({"search.seed": seed}))) for seed in range(10)}) > 1


def test_the_best_trial_is_what_train_will_use(searching: Config) -> None:
    search(searching)
    trials = pd.read_csv(searching.paths.search / "trials.csv")
    assert len(trials) == 2
    assert list(trials["val_dice"]) == sorted(trials["val_dice"], reverse=True)
    assert set(trials["epochs"]) == {2}
    overrides = read_json(searching.paths.search / "overrides.json")
    assert overrides in candidates(searching)
    assert overrides["model.llm.layer"] == trials["model.llm.layer"][0]
    assert overrides["optimizer.lr"] == trials["optimizer.lr"][0]
    searching.override(overrides)
    assert not list(searching.paths.runs.glob("search-*"))
