"""Plain torch and every ZeRO stage compute the same training, also when it goes on from a checkpoint."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llm4seg.config import Config
from llm4seg.models import Hybrid
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.engines.deepspeed import deepspeed_config
from llm4seg.training.engines.offload import Sizes
from llm4seg.training.run import CONTINUE, STOP, LocalRun, Row
from llm4seg.training.trainer import Trainer, fit
from llm4seg.utils.errors import StopRequested

pytestmark = pytest.mark.usefixtures("group")
ENGINES: dict[str, dict[str, Any]] = {
    "torch": {"engine.name": "torch"},
    "zero 0": {"engine.name": "deepspeed", "engine.zero": 0},
    "zero 1": {"engine.name": "deepspeed", "engine.zero": 1},
    "zero 2": {"engine.name": "deepspeed", "engine.zero": 2},
    "zero 3": {"engine.zero": 3},
    "zero 3, CPU offload": {"engine.zero": 3, "engine.offload": "cpu"},
}
NVME: dict[str, Any] = {"engine.zero": 3, "engine.offload": "nvme"}


def train(config: Config, folder: Path) -> tuple[list[Row], dict[str, torch.Tensor]]:
    history = fit(config, LocalRun(folder))
    return history, load_file(folder / "checkpoint" / WEIGHTS)


def assert_same(one: list[Row], other: list[Row]) -> None:
    assert len(one) == len(other)
    for row, twin in zip(one, other, strict=True):
        assert row == pytest.approx(twin, rel=1e-5)


class Stopped(LocalRun):
    """A run that ends after two epochs."""

    def report(self, row: Row, save: Any) -> None:
        super().report(row, save)
        if len(self.rows) == 2:
            raise InterruptedError


class StopAfter(LocalRun):
    """A run that stops after a number of steps; an epoch has three of training and one of validation."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder)
        self._remaining = steps

    def control_signal(self) -> int:
        self._remaining -= 1
        return STOP if self._remaining == 0 else CONTINUE


class Recording(LocalRun):
    """A run that records its log lines."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def assert_resumes(config: Config, run: LocalRun, whole: tuple[list[Row], dict[str, torch.Tensor]]) -> None:
    """A run that ends early, gone on with: every number and every weight is the same bit for bit."""
    with pytest.raises((InterruptedError, StopRequested)):
        fit(config, run)
    resumed_history, resumed_weights = train(config, run.checkpoint.parent)
    history, weights = whole
    assert resumed_history == history
    assert all(torch.equal(weights[tensor], resumed_weights[tensor]) for tensor in weights)


# Adam would blow up the rounding of gradients that are zero in theory: those of biases in front of a BatchNorm; so
# would larger steps on a network this small, where ZeRO 3 lays tensors out otherwise and sums in another order
SGD = {"optimizer.name": "sgd", "optimizer.lr": 0.01, "training.epochs": 2}


@pytest.fixture(scope="module")
def by_torch(
    group: None, workspace: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Row], dict[str, torch.Tensor]]:
    return train(workspace.override(SGD | {"engine.name": "torch"}), tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def whole(
    group: None, workspace: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Row], dict[str, torch.Tensor]]:
    """The default training with plain torch, which nobody interrupts."""
    return train(workspace.override(ENGINES["torch"]), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "torch"])
def test_engines_agree(config: Config, tmp_path: Path, name: str, by_torch: Any) -> None:
    history, weights = train(config.override(SGD | ENGINES[name]), tmp_path)
    assert_same(history, by_torch[0])
    assert weights.keys() == by_torch[1].keys()
    for tensor, value in weights.items():
        torch.testing.assert_close(value, by_torch[1][tensor], rtol=1e-4, atol=1e-5)


def test_resumed_equals_uninterrupted(config: Config, tmp_path: Path, whole: Any) -> None:
    """Stopped after two of three epochs."""
    assert_resumes(config.override(ENGINES["torch"]), Stopped(tmp_path), whole)


@pytest.mark.parametrize(
    ("name", "precision"), [("torch", "bf16"), ("torch", "fp16"), ("zero 1", "bf16"), ("zero 3", "bf16")]
)
def test_left_within_an_epoch_in_half_precision_and_gone_on_with(
    config: Config, tmp_path: Path, name: str, precision: str
) -> None:
    """After the second of the second epoch's three steps; in fp32 and on two workers, see test_workers."""
    config = config.override(ENGINES[name] | {"engine.precision": precision, "training.epochs": 2})
    assert_resumes(config, StopAfter(tmp_path / "parts", 6), train(config, tmp_path / "whole"))


@pytest.mark.parametrize("after", [2, 4, 11])
def test_left_at_any_moment_and_gone_on_with(config: Config, tmp_path: Path, after: int, whole: Any) -> None:
    """Within the first epoch's training, in its validation, and after the last step of all."""
    assert_resumes(config.override(ENGINES["torch"]), StopAfter(tmp_path, after), whole)


@pytest.mark.parametrize("offload", ["none", "cpu"])
def test_zero_3_shares_the_model_out_before_anything_goes_to_the_device(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offload: str
) -> None:
    """Whoever moves a model, we or DeepSpeed, finds no parameter in it; so the LLM may be larger than the device."""
    went = []
    move = Hybrid.to

    def moved(model: Hybrid, *where: Any) -> Hybrid:
        went.append(sum(parameter.numel() for parameter in model.parameters()))
        return move(model, *where)

    monkeypatch.setattr(Hybrid, "to", moved)
    Trainer(config.override({"engine.zero": 3, "engine.offload": offload}), LocalRun(tmp_path))
    assert set(went) == {0}


def test_no_llm_matrix_waits_on_the_device_for_the_backward_pass(config: Config, tmp_path: Path) -> None:
    """DeepSpeed learns the order of modules in the first steps, and then reads ahead unless told not to."""
    trainer: Any = Trainer(config.override({"engine.zero": 3, "engine.offload": "cpu"}), LocalRun(tmp_path))
    images = torch.zeros(config.training.batch_size, trainer.data.channels, *trainer.data.size)
    trainer.engine.train(True)
    sizes = []
    for _ in range(3):
        loss = trainer.engine(images).square().mean()
        matrices = [one for one in trainer.engine._model.parameters() if not (one.requires_grad or one.ds_persist)]
        sizes.append({one.numel() for one in matrices})  # a matrix that is elsewhere has no entries
        trainer.engine.backward(loss)
        trainer.engine.update()
        trainer.engine.advance()
    assert len(matrices) > 3  # the smallest stay for good
    assert sizes == [{0}] * 3


def test_where_the_llm_goes_is_said_once(config: Config, tmp_path: Path) -> None:
    """By rank 0 to whoever started the run."""
    run, other = Recording(tmp_path), Recording(tmp_path)
    other.rank = 1
    for one in (run, other):
        Trainer(config.override({"engine.zero": 3, "engine.offload": "auto"}), one)
    assert run.lines[0] == "engine.name: auto is deepspeed (workers: 1, engine.zero: 3)"
    assert run.lines[1].startswith("engine.offload: auto is none: ")
    assert len(run.lines) == 2
    assert other.lines == []


@pytest.mark.slow
def test_compiled_computes_the_same(config: Config, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("engine.compile needs g++")
    for name in ("torch", "zero 1"):
        changed = config.override(SGD | ENGINES[name])
        history, _ = train(changed, tmp_path / name)
        compiled, _ = train(changed.override({"engine.compile": True}), tmp_path / f"{name}, compiled")
        for row, twin in zip(compiled, history, strict=True):
            assert row == pytest.approx(twin, rel=1e-4), name


def test_accumulation_gives_the_optimizer_the_same_batches(config: Config, tmp_path: Path, whole: Any) -> None:
    """BatchNorm sees smaller batches, so losses differ a little; the number of optimizer steps must not."""
    history, _ = whole
    halves, _ = train(config.override(ENGINES["torch"] | {"engine.accumulation": 2}), tmp_path)
    assert [row["lr"] for row in history] == pytest.approx([row["lr"] for row in halves])
    assert halves[-1]["train_loss"] == pytest.approx(history[-1]["train_loss"], rel=0.2)


def test_clipping_limits_the_step(config: Config, tmp_path: Path, by_torch: Any) -> None:
    frozen_by_clipping = {"optimizer.weight_decay": 0, "optimizer.clip_norm": 1e-12}
    clipped, _ = train(config.override(SGD | ENGINES["torch"] | frozen_by_clipping), tmp_path)
    assert clipped[-1]["train_loss"] != pytest.approx(by_torch[0][-1]["train_loss"], rel=1e-3)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor inside what `torch.load` returned."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (tensor for one in value.values() for tensor in tensors(one))
    elif isinstance(value, list | tuple):
        yield from (tensor for one in value for tensor in tensors(one))


@pytest.mark.parametrize("name", ["torch", "zero 3"])
def test_the_frozen_llm_layer_is_in_no_checkpoint(config: Config, tmp_path: Path, name: str) -> None:
    """Neither its weights nor optimizer state for them, whole or flattened: the layer alone has 21,000 entries."""
    _, weights = train(config.override(ENGINES[name] | {"training.epochs": 1}), tmp_path)
    files = [file for file in tmp_path.rglob("*") if file.suffix in (".pt", ".safetensors")]
    assert len(files) >= 2
    loaded = [torch.load(file, weights_only=False) for file in files if file.suffix == ".pt"]
    trained = sum(tensor.numel() for tensor in weights.values())
    assert max(tensor.numel() for tensor in tensors([*loaded, weights])) <= trained + 1024
    assert not any("gate_proj" in tensor for tensor in weights)


def test_deepspeeds_dict_follows_the_sections(config: Config) -> None:
    changes = {"training.batch_size": 16, "engine.accumulation": 2, "engine.zero": 3, "engine.offload": "cpu"}
    found = Sizes(threshold=100, matrices=(90, 200, 300), bytes=2360, together=3, trained=500)
    derived = deepspeed_config(config.override(changes), found, "cpu", 4, torch.device("cpu"))
    assert derived["train_micro_batch_size_per_gpu"] == 2
    assert derived["gradient_accumulation_steps"] == 2
    zero = derived["zero_optimization"]
    assert (zero["stage"], zero["offload_param"]["device"]) == (3, "cpu")
    assert zero["stage3_param_persistence_threshold"] == 100  # what is larger moves: matrices of 200 and 300 entries
    assert zero["reduce_bucket_size"] == 500
    assert not {"compute_grad_norm", "contiguous_gradients"} & zero.keys()  # as DeepSpeed has them under stage 3


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_computes_a_norm_where_it_clips(config: Config, stage: int) -> None:
    found = Sizes(threshold=100, matrices=(), bytes=0, together=0, trained=500)
    for clip_norm in (None, 1.0):
        changed = config.override({"engine.zero": stage, "optimizer.clip_norm": clip_norm})
        derived = deepspeed_config(changed, found, "none", 2, torch.device("cpu"))
        assert derived["zero_optimization"]["compute_grad_norm"] == (clip_norm is not None)
        assert derived["timers"] == {"throughput": {"enabled": False}}


OPTIONS: dict[str, dict[str, Any]] = {
    "accumulation": {"engine.accumulation": 2},
    "clipping": {"optimizer.clip_norm": 0.1},
    "contiguous": {"engine.channels_last": False},
    "all": {"engine.accumulation": 2, "optimizer.clip_norm": 0.1, "engine.precision": "bf16"},
}


SAME_BITS: dict[str, dict[str, Any]] = {
    "default": {},
    "accumulation": {"engine.accumulation": 2},
    "clipping that does nothing": {"optimizer.clip_norm": 1e6},
    "both": {"engine.accumulation": 2, "optimizer.clip_norm": 1e6},
}


@pytest.mark.parametrize("option", SAME_BITS)
def test_one_worker_computes_the_same_bits_with_torch_and_zero_1(config: Config, tmp_path: Path, option: str) -> None:
    """So `engine.name: auto` changes nothing but time. Under Adam, which blows up any difference."""
    config = config.override(SAME_BITS[option])
    assert config.optimizer.name == "adamw"
    history, weights = train(config.override(ENGINES["torch"]), tmp_path / "torch")
    twin, others = train(config.override(ENGINES["zero 1"]), tmp_path / "zero 1")
    assert twin == history
    assert all(torch.equal(value, others[tensor]) for tensor, value in weights.items())


def test_clipped_steps_differ_in_the_last_bits(config: Config, tmp_path: Path) -> None:
    """Seen: losses differ by 7e-8 of their value and weights by 2e-11. See TorchEngine for the reason."""
    config = config.override(SGD | {"optimizer.clip_norm": 0.1})
    history, weights = train(config.override(ENGINES["torch"]), tmp_path / "torch")
    twin, others = train(config.override(ENGINES["zero 1"]), tmp_path / "zero 1")
    for row, other in zip(history, twin, strict=True):
        assert row == pytest.approx(other, rel=1e-6)
    assert all(torch.allclose(value, others[tensor], rtol=1e-6, atol=1e-7) for tensor, value in weights.items())


def test_auto_says_once_what_runs(config: Config, tmp_path: Path) -> None:
    first, second = Recording(tmp_path), Recording(tmp_path)
    second.rank = 1
    for run in (first, second):
        Trainer(config.override({"engine.name": "auto"}), run)
        Trainer(config.override({"engine.name": "torch"}), run)
    assert first.lines == ["engine.name: auto is torch (workers: 1, engine.zero: 1)"]
    assert second.lines == []


def assert_near(history: list[Row], expected: list[Row], config: Config) -> None:
    """In bf16, engines sum in another order and each sum is rounded to 8 bits; the bound is ten times what was seen."""
    in_bf16 = "bf16" in (config.engine.precision, config.model.llm.dtype)
    assert len(history) == len(expected)
    for row, twin in zip(history, expected, strict=True):
        assert row == pytest.approx(twin, rel=2e-2 if in_bf16 else 1e-5)


@pytest.mark.parametrize(
    ("option", "engine"), [*((option, "zero 3") for option in OPTIONS), ("accumulation", "zero 2"), ("all", "zero 2")]
)
def test_engines_agree_on_every_option(config: Config, tmp_path: Path, option: str, engine: str) -> None:
    config = config.override(SGD | OPTIONS[option])
    expected, _ = train(config.override(ENGINES["torch"]), tmp_path / "torch")
    history, _ = train(config.override(ENGINES[engine]), tmp_path / engine)
    assert_near(history, expected, config)
