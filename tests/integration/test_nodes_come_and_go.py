"""A node is taken away while a run trains, and given back: the result is that of a run that nobody disturbed."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.util.state import list_actors

from llm4seg.cluster.launch import train_on_ray
from llm4seg.cluster.session import ray_session
from llm4seg.config import Config
from llm4seg.training.run import Row
from tests.cluster import nodes
from tests.worker_group import fit_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# tiny steps: over so many epochs, larger ones would blow up the rounding of sums in another order
CHANGES = {"optimizer.name": "sgd", "optimizer.lr": 2e-5, "training.batch_size": 4, "cluster.resize_interval": 5}

# of losses: undisturbed, one worker and two come apart by 1e-4 in 150 epochs (by 2e-4 with another seed), sums being in
# another order; one epoch more or less would be 4e-4, from then on
DRIFT = 3e-4
PIXEL = 1 / 173  # the most that one pixel may change the mean Dice: the smaller of two classes has 173 of them


def wait_until(true: Callable[[], bool], what: str, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.5)


def training() -> int:
    """How many workers train now."""
    alive = list_actors(filters=[("state", "=", "ALIVE")], limit=1000, raise_on_missing_output=False)
    return sum("RayTrainWorker" in actor.class_name for actor in alive)


class Background:
    """A training in a thread, so that something can happen to its nodes meanwhile."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._history: list[Row] = []
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def _train(self) -> None:
        self._history = train_on_ray(self._config).history

    @property
    def checkpoints(self) -> int:
        """How many checkpoints it has left so far."""
        names = (folder.name for folder in self._config.paths.runs.glob("train-*/checkpoint_*"))
        self._seen = getattr(self, "_seen", set()) | set(names)
        return len(self._seen)

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def history(self) -> list[Row]:
        self._thread.join(timeout=600)
        assert self.ended
        return self._history


def further(run: Background) -> None:
    """Wait until a run has left another checkpoint."""
    before = run.checkpoints
    wait_until(lambda: run.checkpoints > before, "another checkpoint")


def assert_equal(history: list[Row], undisturbed: list[Row]) -> None:
    """As a computation in another order of sums: over many epochs it adds up, and may move a pixel to another class."""
    assert [row["epoch"] for row in history] == [row["epoch"] for row in undisturbed]
    for row, twin in zip(history, undisturbed, strict=True):
        assert {**row, "val_dice": 0} == pytest.approx({**twin, "val_dice": 0}, rel=DRIFT)
        assert row["val_dice"] == pytest.approx(twin["val_dice"], abs=PIXEL)


@pytest.mark.parametrize(("workers", "epochs"), [(2, 40), ([1, 2], 150)], ids=["fixed", "elastic"])
def test_a_node_goes_and_another_comes(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | list[int], epochs: int
) -> None:
    """A fixed number of workers waits for the node; a range goes on without it, and takes the new one in."""
    config = config.override(CHANGES | {"training.epochs": epochs})
    undisturbed = fit_on(1 if isinstance(workers, list) else workers, config, tmp_path / "undisturbed")
    with nodes(tmp_path / "nodes", monkeypatch) as cluster:
        cluster.add("one")
        doomed = cluster.add("two")
        config = config.override({"cluster.workers": workers, "cluster.address": cluster.address})
        with ray_session(config.cluster):
            run = Background(config)
            wait_until(lambda: training() == 2 and run.checkpoints > 0, "two workers")
            cluster.kill(doomed)
            wait_until(lambda: training() < 2, "the loss of a worker")
            if isinstance(workers, list):
                wait_until(lambda: training() == 1, "one worker that goes on alone")
                further(run)
            assert not run.ended
            cluster.add("three")
            wait_until(lambda: training() == 2, "two workers again")
            further(run)
            assert_equal(run.history(), undisturbed)
