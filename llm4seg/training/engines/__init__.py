"""`Engine`: a Protocol with DeepSpeed's verbs, implemented by plain torch and by DeepSpeed."""

from typing import Any, Protocol

from torch import Tensor

from llm4seg.config import Config
from llm4seg.models import Hybrid
from llm4seg.training.engines.deepspeed_internals import restore_linear
from llm4seg.training.run import Run


class Engine(Protocol):
    """Forward, backward, update, and a state to resume from. Every worker calls every method.

    A state is complete, on the CPU, and the same for every engine and number of workers, so that any other engine on
    any number of workers resumes from it.
    """

    @property
    def lr(self) -> float:
        """The current learning rate."""

    def __call__(self, images_NCS: Tensor) -> Tensor | list[Tensor]:
        """The model's logits (N, K, *size); in training with deep supervision a list of them."""

    def train(self, mode: bool) -> None:
        """Switch between training and evaluation."""

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradients; `loss` is its mean."""

    @property
    def at_boundary(self) -> bool:
        """Whether the present micro-batch is the last one of an optimizer step."""

    def update(self) -> None:
        """The optimizer's step at a boundary, after `backward`: work of the device alone, without the host's numbers.

        Where gradients overflow under fp16, the device skips the step, while the schedule goes on: it goes by batches.
        In another precision such a step makes the weights not finite; an engine that would leave it out raises
        Diverged.
        """

    def advance(self) -> None:
        """Work of the host after each micro-batch: counters, and at a boundary the schedule and its learning rate."""

    @property
    def capturable(self) -> bool:
        """Whether `update`, and the passes before it, can be captured in a CUDA graph."""

    def graph_refusal(self) -> str | None:
        """What keeps them from it, for a log line."""

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """A copy on the CPU of the model's state dict without frozen parameters of LLM layers."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimizer's state by `key/parameter` with the number of steps, and the schedule's state.

        To be called between optimizer steps.
        """

    def resume(self, optimizer_state: dict[str, Tensor], schedule: dict[str, Any]) -> None:
        """Load a state; the model must have been built with the weights that belong to it."""


def build_engine(model: Hybrid, config: Config, steps: int, run: Run) -> Engine:
    """The engine of the `engine` section for a run of `steps` optimizer steps; rank 0 logs which one `auto` is."""
    section = config.engine.resolve(run.world_size)
    if config.engine.name == "auto" and run.rank == 0:
        run.log(f"engine.name: auto is {section.name} (workers: {run.world_size}, engine.zero: {section.zero})")
    restore_linear()  # as an earlier training of this process may have left it
    if section.name == "torch":
        from llm4seg.training.engines.plain import TorchEngine

        return TorchEngine(model, config, steps, run.device)
    from llm4seg.training.engines.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(model, config, steps, run)
