"""`training.validate_every`: the same is trained; epochs without a validation have no Dice and select nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llm4seg.cluster.progress import EpochPrinter
from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.history import COLUMNS, read_history, write_history
from llm4seg.training.run import LocalRun, Row
from llm4seg.training.trainer import fit
from llm4seg.utils.errors import StopRequested
from llm4seg.utils.files import sha256_file
from tests.integration.test_engines import StopAfter, assert_same
from tests.worker_group import fit_on

pytestmark = pytest.mark.usefixtures("group")
FIVE: dict[str, Any] = {"training.epochs": 5, "training.batch_size": 8, "optimizer.lr": 0.03, "engine.name": "torch"}
RARELY = FIVE | {"training.validate_every": 2}
VALIDATED = [2, 4, 5]  # the last one in any case


def without_validation(rows: list[Row]) -> list[Row]:
    return [{name: row[name] for name in ("epoch", "train_loss", "lr")} for row in rows]


class Recording(LocalRun):
    """A run that keeps the weights after each epoch."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.models: list[dict[str, Tensor]] = []

    def report(self, row: Row | None, save: Any) -> None:
        super().report(row, save)
        self.models.append(Checkpoint.read(self.checkpoint).model)


def weights_of(folder: Path) -> str:
    return sha256_file(folder / "checkpoint" / WEIGHTS)


def test_the_training_is_the_same_and_so_is_each_validation(config: Config, tmp_path: Path) -> None:
    """Resumed anywhere, every bit is the same; the weights are those of the best epoch that was validated."""
    each = fit(config.override(FIVE), LocalRun(tmp_path / "each"))
    run = Recording(tmp_path / "rarely")
    rarely = fit(config.override(RARELY), run)
    assert without_validation(rarely) == without_validation(each)
    assert [row for row in rarely if "val_dice" in row] == [each[epoch - 1] for epoch in VALIDATED]
    best = max((row for row in rarely if "val_dice" in row), key=lambda row: row["val_dice"])
    kept = Checkpoint.read(run.checkpoint)
    assert kept.progress.best == best["val_dice"]
    assert all(torch.equal(kept.weights[name], value) for name, value in run.models[int(best["epoch"]) - 1].items())
    # an epoch has two steps, and one of validation: within it, at its end without a validation, before one, in one
    for stop_after in (1, 2, 4, 5):
        folder = tmp_path / str(stop_after)
        with pytest.raises(StopRequested):
            fit(config.override(RARELY), StopAfter(folder, stop_after))
        assert fit(config.override(RARELY), LocalRun(folder)) == rarely
        assert weights_of(folder) == weights_of(tmp_path / "rarely")


def test_patience_counts_epochs_and_ends_at_a_validation(config: Config, tmp_path: Path) -> None:
    """After 1 epoch without a better Dice, the next validation decides: here the second one, of epoch 4."""
    still = RARELY | {"optimizer.lr": 1e-9, "training.patience": 1, "training.epochs": 9}
    history = fit(config.override(still), LocalRun(tmp_path))
    assert [row.get("epochs_since_best") for row in history] == [None, 0, None, 2]


def test_cells_without_a_validation_are_empty_and_its_line_says_nothing_of_it(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Row] = [
        {"epoch": 1, "train_loss": 0.5, "lr": 0.1},
        {"epoch": 2, "train_loss": 0.25, "val_loss": 0.75, "val_dice": 0.5, "lr": 0.1, "epochs_since_best": 0},
    ]
    write_history(tmp_path / "history.csv", rows)
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == ",".join([*COLUMNS, "epochs_since_best"])
    assert lines[1] == "1,0.5,,,0.1,"
    assert read_history(tmp_path / "history.csv")["val_dice"].isna().tolist() == [True, False]
    for row in rows:
        EpochPrinter(2)(row)
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["epoch", "1/2", "loss", "0.5000"]
    assert "val loss 0.7500  val Dice 0.5000" in second


@pytest.mark.slow
def test_two_workers_compute_what_one_does(config: Config, tmp_path: Path) -> None:
    config = config.override(RARELY | {"optimizer.name": "sgd", "optimizer.lr": 0.0002})
    one, two = (fit_on(workers, config, tmp_path / str(workers)) for workers in (1, 2))
    assert_same(one, two)
    assert [row["epoch"] for row in two if "val_dice" in row] == VALIDATED
