"""Losses and control signals that are read a step late: in order, before anything is saved, the same on all workers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.config import Config
from llm4seg.data.batches import epoch_order
from llm4seg.data.split import read_split
from llm4seg.training import control as control_module
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.control import Control
from llm4seg.training.live import Step
from llm4seg.training.readback import Readback
from llm4seg.training.run import CHECKPOINT, CONTINUE, STOP, SYNC, LocalRun, Row
from llm4seg.training.trainer import Trainer
from llm4seg.utils.errors import Diverged, StopRequested
from tests.worker_group import GroupRun, on_group

CPU = torch.device("cpu")
TORCH = {"engine.name": "torch"}


def test_a_number_comes_out_with_the_next_one() -> None:
    """The tensor may hold another number by then."""
    late, number = Readback[str](CPU, late=True), torch.zeros((), dtype=torch.float64)
    found = []
    for place, value in enumerate([0.1, 2.0, float("nan"), 4.0]):
        number.fill_(value)
        found.append(late.put(f"step {place}", number))
    assert found[:3] == [[], [("step 0", 0.1)], [("step 1", 2.0)]]
    ((tag, value),) = found[3]
    assert tag == "step 2"
    assert value != value
    assert late.settle() == [("step 3", 4.0)]
    assert late.settle() == []


def test_on_the_cpu_a_number_comes_out_at_once_and_what_is_dropped_never() -> None:
    assert Readback[int](CPU).put(7, torch.tensor(1.5)) == [(7, 1.5)]
    late = Readback[int](CPU, late=True)
    late.put(1, torch.tensor(1.0))
    late.drop()
    assert late.put(2, torch.tensor(2.0)) == []
    assert late.put(3, torch.tensor(3.0)) == [(2, 2.0)]


class Watching(LocalRun):
    """Keeps the steps and the checkpoints' steps; asks for a checkpoint, and at last to stop, by a list."""

    def __init__(self, folder: Path, signals: dict[int, int] | None = None) -> None:
        super().__init__(folder)
        self.steps: list[Step] = []
        self.saved: list[tuple[int, int]] = []
        self._polls, self._signals = 0, signals or {}

    def advance(self, step: Step) -> None:
        self.steps.append(step)

    def report(self, row: Row | None, save: Any) -> None:
        super().report(row, save)
        progress = Checkpoint.read(self.checkpoint).progress
        self.saved.append((len(progress.history), progress.step))

    def control_signal(self) -> int:
        self._polls += 1
        return self._signals.get(self._polls, CONTINUE)


def late_trainer(config: Config, run: LocalRun) -> Trainer:
    """A trainer that reads losses as on a GPU."""
    trainer = Trainer(config, run)
    trainer.losses = Readback(CPU, late=True)
    return trainer


@pytest.mark.usefixtures("group")
def test_a_training_with_late_losses_is_the_same(config: Config, tmp_path: Path) -> None:
    """Its history, its steps, and its checkpoints: those within an epoch hold the losses of all steps that are done."""
    config, signals = config.override(TORCH), {2: CHECKPOINT, 5: CHECKPOINT}
    runs = Watching(tmp_path / "at once", signals), Watching(tmp_path / "late", signals)
    history = Trainer(config, runs[0]).train()
    assert late_trainer(config, runs[1]).train() == history
    assert runs[0].steps == runs[1].steps
    assert len(runs[0].steps) == 9
    assert runs[0].saved == runs[1].saved == [(0, 2), (1, 0), (1, 1), (2, 0), (3, 0)]


@pytest.mark.usefixtures("group")
def test_stopped_with_a_loss_on_its_way_and_gone_on_with(config: Config, tmp_path: Path) -> None:
    config = config.override(TORCH)
    whole = Trainer(config, LocalRun(tmp_path / "whole")).train()
    for after in (1, 3, 6):
        folder = tmp_path / f"stopped after {after}"
        with pytest.raises(StopRequested):
            late_trainer(config, Watching(folder, {after: STOP})).train()
        assert late_trainer(config, LocalRun(folder)).train() == whole


def spoiled(trainer: Trainer, step: int) -> None:
    """Make the loss of one step, counted from 0, no number."""
    micro_batch, count = trainer.step._bodies[0], [0]

    def body() -> None:
        micro_batch()
        if count[0] == step:
            trainer.step_loss.fill_(float("nan"))
        count[0] += 1

    trainer.step._bodies = [body]


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("step", [3, 4, 5])
def test_a_loss_that_is_no_number_names_its_step_and_is_in_no_checkpoint(
    config: Config, tmp_path: Path, late: bool, step: int
) -> None:
    """Of the second epoch's three, with a checkpoint asked for after each: the last one is of the step before."""
    config = config.override(TORCH)
    run = Watching(tmp_path, dict.fromkeys(range(1, 99), CHECKPOINT))
    trainer = late_trainer(config, run) if late else Trainer(config, run)
    spoiled(trainer, step)
    with pytest.raises(Diverged) as raised:
        trainer.train()
    train, section = read_split(config.paths.split).train, config.training
    cases = ", ".join(train[sample] for sample in epoch_order(len(train), 4, section.seed, 1)[step - 3])
    assert f"the loss is nan in epoch 2, step {step - 2} of 3, on the cases {cases};" in str(raised.value)
    assert run.saved[-1] == (1, step - 3)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("step", [3, 5])
def test_the_step_after_it_is_the_last(config: Config, tmp_path: Path, step: int) -> None:
    """With nothing saved in between, too: it is found while the next step runs, or at the epoch's end."""
    trainer = late_trainer(config.override(TORCH), Watching(tmp_path))
    spoiled(trainer, step)
    done: list[int] = []
    trainer.train_step, train_step = lambda *where: (done.append(1), train_step(*where))[1], trainer.train_step  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=f"in epoch 2, step {step - 2} of 3"):
        trainer.train()
    assert len(done) == min(step + 2, 6)


def polls(rank: int, signals: list[list[int]], late: bool) -> list[int]:
    """What a worker follows at each poll."""
    run = Watching(Path("none"), dict(enumerate(signals[rank], start=1)))
    control = Control(run, late)
    return [control.poll() for _ in range(6)]


@pytest.mark.parametrize("late", [False, True])
def test_workers_follow_the_largest_signal_at_the_same_poll(late: bool) -> None:
    """Late, a poll later; and what was asked for again, before it was followed, is followed once."""
    signals = [[CONTINUE, CHECKPOINT, CHECKPOINT, CONTINUE, CONTINUE, STOP], [CONTINUE, SYNC] + [CONTINUE] * 4]
    found = on_group(2, polls, signals, late)
    at_once = [CONTINUE, CHECKPOINT, CHECKPOINT, CONTINUE, CONTINUE, STOP]
    assert found == [[CONTINUE, CONTINUE, CHECKPOINT, CONTINUE, CONTINUE, CONTINUE] if late else at_once] * 2


def on_late_worker(rank: int, params: dict[str, Any], folder: Path, stop_at: int) -> tuple[list[Row], list[int]]:
    """What a worker trains that reads losses and signals as on GPUs, and where each save was, in steps of an epoch."""
    run, saved = GroupRun(rank, 2, folder, stop_at if rank == 1 else None), list[int]()
    trainer = late_trainer(Config.parse(params), run)
    trainer.control = Control(run, late=True)
    trainer.save, save = lambda row: (saved.append(trainer.progress.step), save(row))[1], trainer.save  # type: ignore[method-assign]
    try:
        return trainer.train(), saved
    except StopRequested:
        return [], saved


def test_late_workers_stop_at_the_same_step_and_go_on_from_it(config: Config, tmp_path: Path) -> None:
    """Asked by the second of them alone: within an epoch, at its last step, and in its validation."""
    params = config.override(TORCH | {"cluster.workers": 2}).plain()
    (whole, _), _ = on_group(2, on_late_worker, params, tmp_path / "whole", 0)
    for stop_at, (epochs, step) in {1: (0, 2), 2: (0, 3), 3: (0, 3), 4: (1, 1)}.items():
        folder = tmp_path / str(stop_at)
        one, other = on_group(2, on_late_worker, params, folder, stop_at)
        assert one == other
        assert one[0] == []
        left = Checkpoint.read(folder / "checkpoint").progress
        assert (len(left.history), left.step) == (epochs, step)
        assert on_group(2, on_late_worker, params, folder, 0)[0][0] == whole


def test_one_worker_follows_its_signal_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes through a device."""
    monkeypatch.setattr(control_module, "all_reduce", pytest.fail)
    assert Control(Watching(Path("none"), {1: STOP}), late=True).poll() == STOP
