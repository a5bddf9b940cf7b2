"""What ended a training, in one line that a user can act on."""

import torch
from ray.train import TrainingFailedError

from llm4seg.errors import InputError


class TrainingFailed(InputError):
    """A training ended for a reason that starting again did not mend."""


def out_of_memory(error: torch.OutOfMemoryError) -> InputError:
    """What to do about a device without memory left."""
    first = str(error).splitlines()[0]
    return InputError(
        f"the device's memory is full ({first}); lower training.batch_size or raise engine.accumulation, set "
        "model.llm.checkpointing: true or engine.precision: bf16 for fewer activations, or engine.zero: 3 with "
        "engine.offload: cpu for fewer LLM weights"
    )


def named(error: TrainingFailedError, retries: int) -> TrainingFailed:
    """The cause of a failed training: of several workers' errors the first that is not just another one's echo."""
    causes = [*getattr(error, "worker_failures", {}).values()] or [error]
    told = [_first_line(cause) for cause in causes]
    echo = ("Connection", "gloo", "NCCL", "socket")
    line = next((one for one in told if not any(word in one for word in echo)), told[0])
    return TrainingFailed(f"a worker failed more often than cluster.max_failures = {retries} allows: {line}")


def _first_line(error: BaseException) -> str:
    """The line of a remote error that says what happened: the last one of its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
