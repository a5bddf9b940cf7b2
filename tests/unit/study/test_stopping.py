"""When a study that is told to stop ends: not while a run may still be saving its checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from llm4seg.study.trial import StudyProgress


@pytest.fixture
def progress() -> StudyProgress:
    store: Any = SimpleNamespace(read=lambda name: None)
    stop_signal: Any = SimpleNamespace(stop_requested=lambda: True)
    return StudyProgress(store, stop_signal, 3)


def trials(*states: str) -> list[Any]:
    return [SimpleNamespace(status=state, config={"name": f"run-{at}"}) for at, state in enumerate(states)]


@pytest.mark.parametrize("end", ["on_trial_complete", "on_trial_error"])
def test_the_first_run_that_has_saved_does_not_end_the_others(progress: StudyProgress, end: str) -> None:
    first, second, _ = both = trials(Trial.RUNNING, Trial.RUNNING, Trial.PENDING)
    getattr(progress, end)(1, both, first)
    assert not progress.stop_all()
    first.status = Trial.TERMINATED
    getattr(progress, end)(1, both, second)
    assert progress.stop_all()
