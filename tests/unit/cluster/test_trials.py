"""Trials in processes that stay, without Ray: rows come as epochs end, and what is stopped stops."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from llm4seg.cluster import trials
from llm4seg.cluster.process_run import Event
from llm4seg.cluster.stop_signal import LocalStopSignal
from llm4seg.cluster.trials import KeptTrial, training_rows
from llm4seg.config import Config
from llm4seg.search import trial as search_trial
from llm4seg.training.run import Row
from llm4seg.utils.errors import InputError, StopRequested
from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"
HISTORY: list[Row] = [{"epoch": epoch, "val_dice": epoch / 10} for epoch in (1, 2, 3)]


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS)


class FakeTraining:
    """Stands in for `train_here`: reports epochs from `begin` on, then waits for a stop or ends."""

    def __init__(self, begin: int = 0, waits: bool = False, error: Exception | None = None) -> None:
        self._begin, self._waits, self._error = begin, waits, error
        self.stopped = threading.Event()

    def __call__(
        self, config: Config, name: str, handle: Callable[[Event], None], stop_signal: LocalStopSignal, *more: Any
    ) -> Any:
        measured = {"parameters": 7.0} if more[-1] else {}
        handle("a line")
        for row in HISTORY[self._begin :]:
            handle(row | measured)
        if self._error:
            raise self._error
        while self._waits:
            if stop_signal.stop_requested():
                self.stopped.set()
                raise StopRequested
        return SimpleNamespace(history=HISTORY, measured=measured)


def test_each_row_comes_once_it_is_there_and_in_the_end_all(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "train_here", FakeTraining(begin=1))
    assert list(training_rows(config, "run", None, None, False)) == [*HISTORY[1:], *HISTORY]


def test_to_close_the_rows_stops_the_training_and_waits_for_it(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    training = FakeTraining(waits=True)
    monkeypatch.setattr(trials, "train_here", training)
    rows = training_rows(config, "run", None, None, False)
    assert next(rows) == HISTORY[0]
    rows.close()
    assert training.stopped.is_set()


def test_what_a_training_raises_is_raised_after_its_rows(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "train_here", FakeTraining(error=InputError("no such layer")))
    rows = training_rows(config, "run", None, None, False)
    assert [next(rows) for _ in HISTORY] == HISTORY
    with pytest.raises(InputError, match="no such layer"):
        next(rows)


@pytest.mark.parametrize("completed", [0, 2, 3])
@pytest.mark.parametrize("objectives", [["val_dice"], ["val_dice", "parameters"]])
def test_a_trial_that_goes_on_has_each_epoch_once_with_what_was_measured(
    config: Config, monkeypatch: pytest.MonkeyPatch, completed: int, objectives: list[str]
) -> None:
    monkeypatch.setattr(trials, "train_here", FakeTraining(begin=completed))
    monkeypatch.setattr(search_trial, "completed_epochs", lambda config, name: HISTORY[:completed])
    config = config.override({"training.epochs": 3, "search.objectives": objectives})
    measured = {"parameters": 7.0} if len(objectives) > 1 else {}
    assert list(search_trial.epoch_rows(config, "run", None, None)) == [row | measured for row in HISTORY]


class Counting(KeptTrial):
    """Results are what a sample counts to."""

    def setup(self, config: dict[str, Any]) -> None:
        self.closed: list[int] = []
        self.begin(config)

    def results(self, sample: dict[str, Any]) -> Any:
        try:
            for number in range(sample["most"]):
                yield {"number": number, "done": number + 1 == sample["most"]}
        finally:
            self.closed.append(sample["most"])


def test_a_process_that_stays_ends_one_trial_before_the_next() -> None:
    trial = Counting({"most": 3})
    assert trial.step() == {"number": 0, "done": False}
    assert trial.reset_config({"most": 1})
    assert trial.closed == [3]
    assert trial.step() == {"number": 0, "done": True}
    trial.cleanup()
    assert trial.closed == [3, 1]
