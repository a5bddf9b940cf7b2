"""`training.patience`: where a training stops early, resumed or on two workers; the stage says so."""

from pathlib import Path
from typing import Any

import pytest

from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.history import read_history
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import fit
from llm4seg.utils.errors import StopRequested
from llm4seg.utils.files import sha256_file
from tests.integration.test_engines import StopAfter, assert_same
from tests.worker_group import fit_on

pytestmark = pytest.mark.usefixtures("group")
LONG: dict[str, Any] = {"training.epochs": 14, "training.batch_size": 8, "optimizer.lr": 0.03, "engine.name": "torch"}
PATIENCE = 3


def first_stop(dice: list[float]) -> int:
    """The epoch after which a training of these validation Dice stops, counted anew."""
    best, waited = -1.0, 0
    for epoch, value in enumerate(dice, start=1):
        best, waited = (value, 0) if value > best else (best, waited + 1)
        if waited == PATIENCE:
            return epoch
    return len(dice)


def test_it_is_the_beginning_of_the_whole_training(config: Config, tmp_path: Path) -> None:
    """The schedule is that of all epochs, the weights are the best epoch's; resumed anywhere, every bit is the same."""
    whole = fit(config.override(LONG), LocalRun(tmp_path / "whole"))
    last = first_stop([row["val_dice"] for row in whole])
    assert last < 14
    short = config.override(LONG | {"training.patience": PATIENCE})
    history = fit(short, LocalRun(tmp_path / "short"))
    assert [{name: row[name] for name in whole[0]} for row in history] == whole[:last]
    assert history[-1]["epochs_since_best"] == PATIENCE
    checkpoint = Checkpoint.read(tmp_path / "short" / "checkpoint")
    assert checkpoint.progress.best == max(row["val_dice"] for row in history)
    polls = 3 * (last - 1)  # an epoch has two steps of training and one of validation
    for stop_after in (3, polls + 2):
        with pytest.raises(StopRequested):
            fit(short, StopAfter(tmp_path / str(stop_after), stop_after))
        assert fit(short, LocalRun(tmp_path / str(stop_after))) == history
        sums = [sha256_file(tmp_path / part / "checkpoint" / WEIGHTS) for part in ("short", str(stop_after))]
        assert sums[0] == sums[1]
    assert fit(short, StopAfter(tmp_path / "short", 1)) == history  # complete: no step is left


@pytest.mark.slow
def test_two_workers_stop_where_one_does(config: Config, tmp_path: Path) -> None:
    section = {"training.patience": 2, "training.epochs": 8, "optimizer.name": "sgd", "optimizer.lr": 0.0002}
    config = config.override(LONG | section)
    one, two = (fit_on(workers, config, tmp_path / str(workers)) for workers in (1, 2))
    assert_same(one, two)
    assert len(one) < 8
    assert [row["epochs_since_best"] for row in one] == [row["epochs_since_best"] for row in two]


def test_the_stage_and_its_history_say_so(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.train import train

    config = config.override(LONG | {"optimizer.lr": 1e-9, "training.patience": 2, "cluster.launcher": "process"})
    train(config)
    history = read_history(config.paths.history)  # as the report does
    assert history["epochs_since_best"].iloc[-1] == 2
    assert f"stopped after epoch {len(history)}: no better validation Dice in 2 epochs" in capsys.readouterr().out
