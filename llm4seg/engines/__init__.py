"""Who runs the optimizer step. One Protocol with DeepSpeed's verbs; plain torch and DeepSpeed behind it."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from llm4seg.config import Config
from llm4seg.models import Hybrid
from llm4seg.run import Run


class Engine(Protocol):
    """Forward, backward, step, save, load. Each is called by every worker."""

    @property
    def lr(self) -> float:
        """The current learning rate."""

    def __call__(self, images_NCS: Tensor) -> Tensor:
        """Logits (N, K, *size)."""

    def train(self, mode: bool) -> None:
        """Switch between training and evaluation; evaluation sees BatchNorm statistics averaged over workers."""

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradients; `loss` is its mean."""

    def step(self) -> None:
        """After each micro-batch; the optimizer moves on each `engine.accumulation`-th call."""

    def weights(self) -> dict[str, Tensor]:
        """A copy of what a weights file holds, on the CPU: everything but the frozen, pre-trained LLM layer."""

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Write this worker's part of a checkpoint: weights, optimizer, schedule, and `state`."""

    def load(self, folder: Path) -> dict[str, Any]:
        """Take a checkpoint back and return its `state`."""


def build_engine(model: Hybrid, config: Config, steps: int, run: Run) -> Engine:
    """The engine of the `engine` section for a run of `steps` optimizer steps."""
    match config.engine.name:
        case "torch":
            from llm4seg.engines.plain import TorchEngine

            return TorchEngine(model, config.optimizer, config.engine, steps, run.device)
        case "deepspeed":
            from llm4seg.engines.deepspeed import DeepSpeedEngine

            return DeepSpeedEngine(model, config, steps, run)
