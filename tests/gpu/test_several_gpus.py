"""Two workers with a GPU each, over NCCL, compute what one computes; the same code runs on the CPU, over gloo."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.cluster.launch import train_on_ray
from llm4seg.cluster.session import ray_session
from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.run import Row
from llm4seg.training.trainer import Trainer
from llm4seg.utils.errors import StopRequested
from llm4seg.utils.files import sha256_file
from tests.integration.test_engines import ENGINES
from tests.worker_group import GroupRun, on_group

TWO_GPUS = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.device_count() < 2, reason=f"needs two CUDA devices, found {torch.cuda.device_count()}"
    ),
]
DEVICES = [pytest.param("cuda", marks=TWO_GPUS), pytest.param("cpu", marks=pytest.mark.slow)]
# steps so small that rounding does not grow: see test_engines
SGD: dict[str, Any] = {"optimizer.name": "sgd", "optimizer.lr": 0.002, "training.batch_size": 4, "training.epochs": 3}
STEPS = 3  # an epoch, of which the first is before a graph is recorded
CLOSE = {"cuda": 1e-3, "cpu": 1e-5}  # a GPU may choose other algorithms for half a batch


@dataclass(frozen=True)
class Trained:
    """What a worker says of a training: the history (none: it stopped), the step it ended at, whether it replayed."""

    history: list[Row]
    step: int
    recorded: bool
    lines: list[str]


class Member(GroupRun):
    """A worker that keeps log lines; rank 0 alone asks for a stop."""

    def __init__(self, rank: int, workers: int, folder: Path, stop_after: int | None, device: torch.device) -> None:
        super().__init__(rank, workers, folder, stop_after if rank == 0 else None, device)
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def member(
    rank: int, workers: int, params: dict[str, Any], folder: Path, device: str, stop_after: int | None
) -> Trained:
    place = torch.device("cuda", rank) if device == "cuda" else torch.device("cpu")
    run = Member(rank, workers, folder, stop_after, place)
    trainer = Trainer(Config.parse(params), run)
    try:
        history = trainer.train()
    except StopRequested:
        history = []
    return Trained(history, trainer.progress.step, trainer.step.recorded, run.lines)


def train_on(workers: int, config: Config, folder: Path, device: str, stop_after: int | None = None) -> list[Trained]:
    """What each worker says."""
    params = config.override({"cluster.workers": workers, "cluster.device": device}).plain()
    return on_group(workers, member, workers, params, folder, device, stop_after, device=device)


def assert_close(history: list[Row], expected: list[Row], device: str) -> None:
    assert len(history) == len(expected) > 0
    for row, reference in zip(history, expected, strict=True):
        assert row == pytest.approx(reference, rel=CLOSE[device])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("engine", ["torch", "zero 1", "zero 3"])
def test_two_compute_what_one_does(config: Config, tmp_path: Path, engine: str, device: str) -> None:
    (one,) = train_on(1, config.override(SGD | ENGINES["torch"]), tmp_path / "one", device)
    for worker in train_on(2, config.override(SGD | ENGINES[engine]), tmp_path / "two", device):
        assert_close(worker.history, one.history, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_sums_over_workers_are_replayed_to_the_bit(
    config: Config, tmp_path: Path, accumulation: int, device: str
) -> None:
    """Gradients, BatchNorm's values and losses are summed inside the graph. On the CPU there is none."""
    config = config.override(SGD | ENGINES["torch"] | {"engine.accumulation": accumulation})
    as_it_is = train_on(2, config.override({"engine.graph": "off"}), tmp_path / "off", device)
    replayed = train_on(2, config, tmp_path / "auto", device)
    assert [worker.lines for worker in replayed] == [[], []]
    assert [worker.recorded for worker in replayed] == 2 * [device == "cuda"]
    assert [worker.history for worker in replayed] == [worker.history for worker in as_it_is]
    assert sha256_file(tmp_path / "auto" / "checkpoint" / WEIGHTS) == sha256_file(
        tmp_path / "off" / "checkpoint" / WEIGHTS
    )


@pytest.mark.parametrize("device", DEVICES)
def test_all_stop_at_the_step_at_which_one_is_asked_to(config: Config, tmp_path: Path, device: str) -> None:
    """In the second epoch, whose steps are replayed on GPUs; and go on to the same end, to the bit."""
    config = config.override(SGD | ENGINES["torch"])
    whole = train_on(2, config, tmp_path / "whole", device)
    left = train_on(2, config, tmp_path / "parts", device, stop_after=STEPS + 1 + 1)
    assert [worker.history for worker in left] == [[], []]
    assert left[0].step == left[1].step > 0
    again = train_on(2, config, tmp_path / "parts", device)
    assert [worker.history for worker in again] == [worker.history for worker in whole]


@pytest.fixture
def ray(config: Config) -> Iterator[None]:
    with ray_session(config.cluster):
        yield


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("engine", ["torch", "zero 1"])
def test_workers_of_ray_train_do_so_too(ray: None, config: Config, tmp_path: Path, engine: str, device: str) -> None:
    config = config.override(SGD | ENGINES[engine])
    (one,) = train_on(1, config.override(ENGINES["torch"]), tmp_path / "one", device)
    two = train_on_ray(config.override({"cluster.workers": 2, "cluster.device": device}))
    assert_close(two.history, one.history, device)
