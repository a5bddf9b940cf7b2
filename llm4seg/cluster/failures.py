"""What ended a training, in one line that a user can act on."""

import traceback

import torch
from ray.train import ControllerError, TrainingFailedError

from llm4seg.errors import InputError

FULL = ("out of memory", "can't allocate memory", "not enough memory")  # how torch says it, on any device
HOLDS = {  # which tensors a function makes, the innermost one counts
    "build_model": "weights",
    "build_engine": "weights and the optimizer's state",
    "__call__": "activations",
    "backward": "gradients and recomputed activations",
    "step": "the optimizer's state",
}
ECHOES = ("Connection", "gloo", "NCCL", "socket")  # what the other workers say when one dies


class TrainingFailed(InputError):
    """A training ended for a reason that starting again did not mend."""


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in FULL)


def out_of_memory(error: RuntimeError) -> InputError:
    """What filled the memory, and what to do about it."""
    frames = [frame.name for frame in reversed(traceback.extract_tb(error.__traceback__))]
    tensors = next((HOLDS[name] for name in frames if name in HOLDS), "tensors")
    said = next(line for line in str(error).splitlines() if any(word in line for word in FULL))
    return InputError(
        f"the device's memory is full, while making {tensors} ({said}); lower training.batch_size or raise "
        "engine.accumulation, set model.llm.checkpointing: true or engine.precision: bf16 for fewer activations, or "
        "engine.zero: 3 with engine.offload: cpu for fewer LLM weights"
    )


def is_refusal(error: BaseException) -> bool:
    """Whether Ray's controller was stopped by a storage that refused it something."""
    return isinstance(error, ControllerError) and isinstance(error.controller_failure, OSError)


def named(error: TrainingFailedError, retries: int) -> TrainingFailed:
    """The cause of a failed training: of several workers' errors the first that is not just another one's echo."""
    causes = [*getattr(error, "worker_failures", {}).values()] or [error]
    told = [_first_line(cause) for cause in causes]
    line = next((one for one in told if not any(word in one for word in ECHOES)), told[0])
    return TrainingFailed(f"a worker failed more often than cluster.max_failures = {retries} allows: {line}")


def _first_line(error: BaseException) -> str:
    """The line of a remote error that says what happened: the last one of its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
