"""A step replayed as a CUDA graph computes the bits of one that runs as it is, and the host waits in neither."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from llm4seg.config import Config
from llm4seg.data import resident as resident_module
from llm4seg.data.batches import epoch_order
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.step import WARM_UP
from llm4seg.training.trainer import Place, Trainer
from llm4seg.utils.errors import StopRequested
from tests.lesion_volumes import prepare_lesions
from tests.noting import Noting, Result, assert_equal

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("group"),
]
TORCH: dict[str, Any] = {"engine.name": "torch"}
LIVELY = {"flip": [0, 1], "quarter_turns": True, "elastic": 3.0, "color": 0.2, "rotate": 20}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "sgd": {"optimizer.name": "sgd", "optimizer.schedule": "poly"},
    "accumulation": {"engine.accumulation": 2},
    "clipping": {"optimizer.clip_norm": 0.5},
    "bf16": {"engine.precision": "bf16"},
    "fp16": {"engine.precision": "fp16", "engine.accumulation": 2, "optimizer.clip_norm": 0.5},
    "LoRA": {"model.llm.training": "lora"},
    "augmentation": {f"training.augment.{name}": value for name, value in LIVELY.items()},
    "focal loss": {"training.loss": "dice_focal", "training.class_weights": [0.2, 1.0, 3.0]},
}


def on_gpu(folder: Path, stop_after: int = 0) -> Noting:
    return Noting(folder, stop_after, torch.device("cuda"))


def trained(config: Config, run: Noting, recorded: bool) -> Result:
    trainer = Trainer(config, run)
    history = trainer.train()
    assert trainer.step.recorded == recorded, run.lines
    return history, Checkpoint.read(run.checkpoint)


@pytest.mark.parametrize("name", OPTIONS)
def test_replayed_steps_compute_the_bits_of_those_that_run_as_they_are(
    config: Config, tmp_path: Path, name: str
) -> None:
    """Of nine steps of three epochs, six are replayed, with validations between them; and twice the same."""
    config = config.override(TORCH | OPTIONS[name])
    as_it_is = trained(config.override({"engine.graph": "off"}), on_gpu(tmp_path / "as it is"), recorded=False)
    for number in (1, 2):
        run = on_gpu(tmp_path / f"recorded, {number}")
        assert_equal(trained(config, run, recorded=True), as_it_is)
        assert run.lines == []


def test_left_within_an_epoch_and_gone_on_with(config: Config, tmp_path: Path) -> None:
    """After a replay: polls are three of an epoch's steps, and those of its validation."""
    config = config.override(TORCH | {"training.epochs": 4})
    whole = trained(config, on_gpu(tmp_path / "whole"), recorded=True)
    polls = 3 + 1 + 2
    with pytest.raises(StopRequested):
        Trainer(config, on_gpu(tmp_path / "parts", polls)).train()
    left = Checkpoint.read(tmp_path / "parts" / "checkpoint").progress
    assert (len(left.history), left.step) == (1, 2)
    assert_equal(trained(config, on_gpu(tmp_path / "parts"), recorded=True), whole)


def test_images_that_do_not_fit_are_read_ahead_to_the_same_end(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.override(TORCH)
    held = Trainer(config, on_gpu(tmp_path / "held"))
    assert held.feed.resident is not None
    history = held.train()
    monkeypatch.setattr(resident_module, "MEMORY_FRACTION", 0.0)
    read = Trainer(config, on_gpu(tmp_path / "read"))
    assert read.feed.resident is None
    assert read.train() == history
    assert read.step.recorded


def test_a_training_that_is_over_frees_its_memory(config: Config, tmp_path: Path) -> None:
    """Its graphs' as well, at once. What the first training leaves, such as cuBLAS's workspaces, serves all."""
    left = []
    gc.collect()
    gc.disable()
    try:
        for number in range(3):
            trained(config.override(TORCH), on_gpu(tmp_path / str(number)), recorded=True)
            torch.cuda.synchronize()
            left.append(torch.cuda.memory_allocated())
    finally:
        gc.enable()
    assert left[1:] == [left[0]] * 2


def test_patches_of_volumes(tmp_path: Path) -> None:
    config = prepare_lesions(tmp_path, TORCH | {"training.epochs": 3, "training.augment.elastic": 2.0})
    as_it_is = trained(config.override({"engine.graph": "off"}), on_gpu(tmp_path / "as it is"), recorded=False)
    assert_equal(trained(config, on_gpu(tmp_path / "recorded"), recorded=True), as_it_is)


@contextmanager
def no_wait() -> Iterator[None]:
    """Raise where the host waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def steps(trainer: Trainer, epoch: int, count: int) -> None:
    """Some steps of an epoch, as `train_epoch` has them; their losses are read."""
    section = trainer.config.training
    for step in range(count):
        trainer.train_step(epoch, step)
        trainer.take_note(trainer.losses.put(Place(epoch, step, ()), trainer.step_loss))
    assert section.batch_size == 2


def epoch_of(trainer: Trainer, epoch: int) -> Any:
    section = trainer.config.training
    return trainer.feed.epoch(epoch, epoch_order(len(trainer.samples), section.batch_size, section.seed, epoch))


@pytest.mark.parametrize("graph", ["auto", "off"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_host_waits_in_no_step(config: Config, tmp_path: Path, graph: str, accumulation: int) -> None:
    """Five of the six steps of an epoch, after one that warms up and records."""
    small = {"training.batch_size": 2, "engine.accumulation": accumulation, "engine.graph": graph}
    trainer = Trainer(config.override(TORCH | small), on_gpu(tmp_path))
    trainer.train_epoch(0)
    assert trainer.step.recorded == (graph == "auto")
    trainer.engine.train(True)
    with epoch_of(trainer, 1), no_wait():
        steps(trainer, 1, 5)
    trainer.take_note(trainer.losses.settle())
    assert trainer.progress.step == 5


def test_a_step_is_one_launch_of_a_graph(config: Config, tmp_path: Path) -> None:
    trainer = Trainer(config.override(TORCH | {"training.batch_size": 2}), on_gpu(tmp_path))
    trainer.train_epoch(0)
    trainer.engine.train(True)
    with epoch_of(trainer, 1), profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        steps(trainer, 1, 5)
        torch.cuda.synchronize()
    names = [event.name for event in seen.events()]
    assert names.count("cudaGraphLaunch") == 5
    # the place in the epoch, the generator's seed and offset, the learning rate: what the host says in each step
    assert names.count("cudaLaunchKernel") + names.count("cudaLaunchKernelExC") <= 5 * 10


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_recording_that_fails_leaves_a_training_as_it_is(config: Config, tmp_path: Path, accumulation: int) -> None:
    """The host asks for a number in the middle of it."""
    config = config.override(TORCH | {"engine.accumulation": accumulation})
    expected = Trainer(config.override({"engine.graph": "off"}), on_gpu(tmp_path / "off")).train()
    run = on_gpu(tmp_path / "fails")
    trainer = Trainer(config, run)
    body = trainer.step._bodies[-1]

    def failing() -> None:
        body()
        if torch.cuda.is_current_stream_capturing():
            trainer.step_loss.item()

    trainer.step._bodies = [*trainer.step._bodies[:-1], failing]
    stream = torch.cuda.current_stream()
    assert trainer.train() == expected
    assert torch.cuda.current_stream() == stream
    assert not trainer.step.recorded
    (line,) = run.lines
    assert line.startswith("engine.graph: auto is off: recording a step failed: ")


def test_the_recording_comes_after_real_steps(config: Config, tmp_path: Path) -> None:
    """Of which each counts: the first epoch's loss is that of three steps that ran as they are."""
    config = config.override(TORCH | {"training.epochs": 1})
    trainer = Trainer(config, on_gpu(tmp_path))
    assert trainer.steps == WARM_UP
    trainer.train()
    assert not trainer.step.recorded
