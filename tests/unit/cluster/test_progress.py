"""The line of steps: drawn on a terminal alone, and gone before anything else is printed."""

import io
import re

import pytest
from rich.console import Console

from llm4seg.cluster import progress
from llm4seg.cluster.progress import EpochPrinter
from llm4seg.training.live import Step

ROW = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.4, "val_dice": 0.25, "lr": 0.1}


def drawn(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a console gets of two steps, four seconds apart, and the epoch's row."""
    times = iter([10.0, 14.0, 15.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    output = io.StringIO()
    printer = EpochPrinter(3, Console(file=output, force_terminal=terminal, width=120))
    assert printer.draws_steps == terminal
    printer(Step(1, 2, 20, 0.75, 8))
    printer(Step(1, 4, 20, 0.625, 8))
    printer(ROW) if terminal else None
    printer.close()
    return output.getvalue()


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn(True, monkeypatch))
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert lines[0] == "epoch 1/3  step 2/20  loss 0.7500"
    # two steps of 8 images in 4 s, and 16 steps to go at 0.5 a second
    assert lines[-1] == "epoch 1/3  step 4/20  loss 0.6250  4.0 images/s  32 s left in this epoch"
    assert capsys.readouterr().out == "epoch 1/3  loss 0.5000  val loss 0.4000  val Dice 0.2500  \n"


def test_without_a_terminal_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(False, monkeypatch) == ""
