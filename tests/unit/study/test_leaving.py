"""When a study that was told to leave ends: not while a run may still be saving its checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from llm4seg.study.runner import _RunProgress


@pytest.fixture
def told() -> _RunProgress:
    shelf: Any = SimpleNamespace(read=lambda name: None)
    stop_signal: Any = SimpleNamespace(stop_requested=lambda: True)
    return _RunProgress(shelf, stop_signal, 3)


def trials(*states: str) -> list[Any]:
    return [SimpleNamespace(status=state, config={"name": f"run-{at}"}) for at, state in enumerate(states)]


@pytest.mark.parametrize("end", ["on_trial_complete", "on_trial_error"])
def test_the_first_run_that_has_saved_does_not_end_the_others(told: _RunProgress, end: str) -> None:
    first, second, _ = both = trials(Trial.RUNNING, Trial.RUNNING, Trial.PENDING)
    getattr(told, end)(1, both, first)
    assert not told.stop_all()
    first.status = Trial.TERMINATED
    getattr(told, end)(1, both, second)
    assert told.stop_all()
