"""What ended a training, in one line that a user can act on."""

import traceback
from collections.abc import Iterable
from typing import Any

import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import ControllerError, TrainingFailedError, UserCallback

from llm4seg.cluster.ray_internals import WorkerHealthCheckTimeoutError
from llm4seg.utils.errors import InputError, UserError

FULL = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED")  # as torch says it, anywhere
HOLDS = {  # which tensors a function makes, the innermost one counts
    "build_model": "weights",
    "build_engine": "weights and the optimizer's state",
    "__call__": "activations",
    "backward": "gradients and recomputed activations",
    "step": "the optimizer's state",
}
SECONDARY_ERRORS = ("Connection", "gloo", "NCCL", "socket")  # what the other workers say when one dies


class TrainingFailed(UserError):
    """A training ended for a reason that starting again did not mend."""


def first_fatal(errors: Iterable[BaseException]) -> UserError | None:
    """Of several workers' errors one that would only come again."""
    return next((error for error in errors if isinstance(error, UserError)), None)


class FailFast(UserCallback):
    """Ends a training whose worker fails in a way that would only come again, whatever the other workers wait for.

    Runs in Ray's controller, which starts workers again after their own errors, and ends after a callback's.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if error := first_fatal(worker_exceptions.values()):
            raise error


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in FULL)


def out_of_memory(error: RuntimeError | MemoryError) -> InputError:
    """What filled the memory, and what to do about it."""
    frames = [frame.name for frame in reversed(traceback.extract_tb(error.__traceback__))]
    tensors = next((HOLDS[name] for name in frames if name in HOLDS), "tensors")
    lines = str(error).splitlines() or ["out of memory"]
    said = next((line for line in lines if any(word in line for word in FULL)), lines[0])
    return InputError(
        f"the device's memory is full, while making {tensors} ({said}); lower training.batch_size or raise "
        "engine.accumulation, set model.llm.checkpointing: true or engine.precision: bf16 for fewer activations, or "
        "engine.zero: 3 with engine.offload: cpu for fewer LLM weights"
    )


def is_the_controllers(error: BaseException) -> bool:
    """Whether Ray's controller or a helper of it died, or the storage refused it something: no worker's doing."""
    if isinstance(error, ControllerError):
        error = error.controller_failure
        return isinstance(error, OSError | RayActorError | OutOfMemoryError)
    return isinstance(error, RayActorError)


def to_user_error(error: TrainingFailedError | RayActorError, retries: int) -> UserError:
    """What made a training fail for good."""
    if isinstance(error, ControllerError) and isinstance(error.controller_failure, UserError):
        return error.controller_failure  # from `FailFast`
    failures = getattr(error, "worker_failures", {})
    if not failures:
        return TrainingFailed(f"the training could not go on: {_last_line(error)}")
    line = root_cause(failures.values())
    return TrainingFailed(f"a worker failed more often than cluster.max_failures = {retries} allows: {line}")


def root_cause(errors: Iterable[BaseException]) -> str:
    """Of several workers' errors the first that is not just another one's echo."""
    told = [_last_line(error) for error in errors]
    return next((one for one in told if not any(word in one for word in SECONDARY_ERRORS)), told[0])


def _last_line(error: BaseException) -> str:
    """The line of a remote error that says what happened: the last one of its traceback."""
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return "its process hangs: it has not answered for cluster.timeout"
    if "unexpectedly exits" in str(error):  # Ray's words for a process that is gone
        return (
            "its process ended: it crashed, was killed, or made no step for cluster.timeout "
            "(then Ray's log of it ends with its stack)"
        )
    if "address the out of memory issue" in str(error):  # Ray's memory monitor, which goes on about it
        return "the node's memory is full, so Ray ended a process; lower cluster.workers or training.batch_size"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
