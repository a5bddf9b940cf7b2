"""A stage that is killed and goes on: the tracker is told of each epoch once; results are those of no tracker."""

import csv
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import fit
from llm4seg.utils.files import sha256_file
from tests.training import OFTEN, Training, history_of, wait_until, weights_of


def test_killed_it_goes_on_in_the_same_run(group: None, config: Config, tmp_path: Path) -> None:
    config = config.override(OFTEN | {"cluster.launcher": "process"})
    history = fit(config, LocalRun(tmp_path / "undisturbed"))
    tracked = config.override({"tracking.to": "tensorboard", "tracking.pictures": 4})
    training = Training(tracked, tmp_path)
    wait_until(lambda: len(training.epochs_printed()) >= 2, "no two epochs")
    training.kill()
    assert list(config.paths.runs.glob("live/train-*/history.csv"))
    training = Training(tracked, tmp_path)
    assert training.end() == 0, training.shown()
    assert (history_of(config), weights_of(config)) == (
        history,
        sha256_file(tmp_path / "undisturbed" / "checkpoint" / WEIGHTS),
    )
    (kept,) = (config.paths.tracking / "finished").iterdir()
    with (kept / "history.csv").open(encoding="utf-8", newline="") as file:
        told = list(csv.DictReader(file))
    for name in ("epoch", "train_loss", "val_loss", "val_dice", "lr"):
        assert [float(row[name]) for row in told] == [row[name] for row in history]
    (folder,) = (config.paths.tracking / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [one.step for one in events.Scalars("train_loss")] == [row["epoch"] for row in history]
    assert not list(config.paths.runs.iterdir())
