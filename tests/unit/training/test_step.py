"""Recording and replaying a step, by an emulated CUDA graph on the CPU: equal bits, and what cannot be recorded."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llm4seg.config import Config
from llm4seg.training import trainer as training
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.run import LocalRun
from llm4seg.training.step import WARM_UP, Step, graph_refusal, recorder_for
from llm4seg.training.trainer import Trainer
from llm4seg.utils.errors import StopRequested
from tests.emulated_graph import EmulatedRecorder
from tests.noting import Noting, Result, assert_equal

STEADY = {"engine.name": "torch", "optimizer.name": "sgd", "optimizer.lr": 0.05, "optimizer.schedule": "constant"}
LIVELY = {"flip": [0, 1], "quarter_turns": True, "elastic": 3.0, "rotate": 20}
RECORDED: dict[str, dict[str, Any]] = {
    "default": {},
    "accumulation": {"engine.accumulation": 2},
    "clipping": {"optimizer.clip_norm": 0.5},
    "bf16": {"engine.precision": "bf16"},
    "augmentation": {f"training.augment.{name}": value for name, value in LIVELY.items()},
    "focal loss": {"training.loss": "dice_focal"},
    "a schedule": {"optimizer.name": "adamw", "optimizer.lr": 0.001, "optimizer.schedule": "onecycle"},
    "fp16": {"engine.precision": "fp16", "engine.accumulation": 2, "optimizer.clip_norm": 0.1},
    "LoRA": {"model.llm.training": "lora", "model.llm.position": "axial"},
}


class Recorded:
    """Has each Trainer record its steps; keeps the recorders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recorders: list[EmulatedRecorder] = []
        monkeypatch.setattr(training, "recorder_for", self._recorder)

    def _recorder(self, *arguments: Any) -> EmulatedRecorder:
        self.recorders.append(EmulatedRecorder())
        return self.recorders[-1]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(monkeypatch)


def trained(config: Config, folder: Path, run: LocalRun | None = None) -> Result:
    run = run or LocalRun(folder)
    history = Trainer(config, run).train()
    return history, Checkpoint.read(run.checkpoint)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("name", RECORDED)
def test_replayed_steps_compute_the_same_bits(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of three epochs of three steps the first is as it is, and validations lie between the replays."""
    config = config.override(STEADY | RECORDED[name])
    as_it_is = trained(config, tmp_path / "as it is")
    recorded, run = Recorded(monkeypatch), Noting(tmp_path / "recorded")
    assert_equal(trained(config, tmp_path, run), as_it_is)
    (recorder,), parts = recorded.recorders, config.engine.accumulation
    assert (recorder.runs, recorder.recordings, recorder.replays) == (parts * WARM_UP, parts, parts * 6)
    assert run.lines == []


@pytest.mark.usefixtures("group")
def test_a_run_that_goes_on_records_anew(config: Config, tmp_path: Path, recorded: Recorded) -> None:
    """Stopped after a replay in the second epoch, within it."""
    config = config.override(STEADY)
    whole = trained(config, tmp_path / "whole")
    with pytest.raises(StopRequested):
        trained(config, tmp_path, Noting(tmp_path / "parts", stop_after=6))
    left = Checkpoint.read(tmp_path / "parts" / "checkpoint").progress
    assert (len(left.history), left.step) == (1, 2)
    assert_equal(trained(config, tmp_path / "parts"), whole)
    assert [recorder.recordings for recorder in recorded.recorders] == [1, 1, 1]
    assert [recorder.replays for recorder in recorded.recorders] == [6, 2, 1]


@pytest.mark.usefixtures("group")
def test_what_the_host_decides_in_each_step_shows_in_a_replay(
    config: Config, tmp_path: Path, recorded: Recorded
) -> None:
    """The emulation would find it: noise that the host adds to some images and not to others."""
    config = config.override(STEADY | {"training.augment.noise": 1.0})
    replayed, _ = trained(config, tmp_path / "recorded")
    recorded.recorders.clear()
    trainer = Trainer(config, LocalRun(tmp_path / "as it is"))
    trainer.step._recorder = None
    assert trainer.train()[-1]["train_loss"] != replayed[-1]["train_loss"]


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_recording_that_fails_leaves_a_training_as_it_is(
    config: Config, tmp_path: Path, recorded: Recorded, accumulation: int
) -> None:
    """At the last micro-batch of a step, after its gradients were there; a line says why."""
    config = config.override(STEADY | {"engine.accumulation": accumulation})
    plain = Trainer(config, LocalRun(tmp_path / "plain"))
    plain.step._recorder = None
    expected = plain.train()
    run = Noting(tmp_path / "fails")
    trainer = Trainer(config, run)
    body = trainer.step._bodies[-1]

    def failing() -> None:
        if recorded.recorders[-1].recording:
            for parameter in trainer.step._parameters:
                parameter.grad = torch.full_like(parameter, torch.nan)  # as of a recording, never computed
            torch.zeros(1).item()
        body()

    trainer.step._bodies = [*trainer.step._bodies[:-1], failing]
    assert trainer.train() == expected
    (line,) = run.lines
    assert line.startswith("engine.graph: auto is off: recording a step failed: operation not permitted")
    assert not trainer.step.recorded


def test_a_step_of_two_bodies_in_turn() -> None:
    """By hand: warmed up, recorded in order, replayed in order."""
    done: list[str] = []

    class Noted:
        def run(self, body: Callable[[], None]) -> None:
            done.append("run")
            body()

        def record(self, body: Callable[[], None]) -> Callable[[], None]:
            done.append("record")
            return lambda: done.append(f"replay {body.__name__}")

    def a() -> None:
        done.append("a")

    def b() -> None:
        done.append("b")

    step = Step([a, b], [nn.Parameter(torch.zeros(1))], Noted(), done.append)
    for _ in range(WARM_UP + 2):
        step(0)
        step(1)
    assert done[: 4 * WARM_UP] == ["run", "a", "run", "b"] * WARM_UP
    assert done[4 * WARM_UP :] == ["record", "replay a", "record", "replay b", "replay a", "replay b"]
    assert step.recorded


ENGINE = SimpleNamespace(capturable=True, graph_refusal=lambda: None)


@pytest.mark.parametrize(
    ("changes", "engine", "reason"),
    [
        ({}, ENGINE, None),
        ({"training.augment.elastic": 2.0, "training.augment.color": 0.2}, ENGINE, None),
        ({"training.augment.gamma": 0.3}, ENGINE, "training.augment.gamma changes some images"),
        ({"cluster.workers": [1, 2], "cluster.address": "auto"}, ENGINE, "cluster.workers is a range"),
        ({}, SimpleNamespace(capturable=True, graph_refusal=lambda: "engine.zero is 3"), "engine.zero is 3"),
        ({}, SimpleNamespace(capturable=False, graph_refusal=lambda: None), "the engine's steps need the host"),
    ],
    ids=["default", "elastic", "gamma", "range", "refusal", "host"],  # the same in every process of a run
)
def test_what_cannot_be_recorded(config: Config, changes: dict[str, Any], engine: Any, reason: str | None) -> None:
    found = graph_refusal(config.override(changes), engine, workers=1)
    assert found is None if reason is None else str(found).startswith(reason)


def test_a_refusal_is_said_once_by_the_first_worker_and_off_says_nothing(config: Config) -> None:
    lines: list[str] = []
    run: Any = SimpleNamespace(device=torch.device("cuda"), rank=0, world_size=1, log=lines.append)
    gamma, engine = config.override({"training.augment.gamma": 0.3}), ENGINE
    for one, rank in ((gamma, 0), (gamma, 1), (gamma.override({"engine.graph": "off"}), 0)):
        run.rank = rank
        assert recorder_for(one, engine, run) is None  # type: ignore[arg-type]
    assert len(lines) == 1
    assert lines[0].startswith("engine.graph: auto is off: training.augment.gamma ")


def test_on_the_cpu_nothing_is_recorded(config: Config) -> None:
    run: Any = SimpleNamespace(device=torch.device("cpu"), rank=0, world_size=1, log=pytest.fail)
    assert recorder_for(config, ENGINE, run) is None  # type: ignore[arg-type]
