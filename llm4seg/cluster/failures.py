"""What ended a training on Ray, in one line that a user can act on."""

from collections.abc import Iterable
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import ControllerError, TrainingFailedError, UserCallback

from llm4seg.cluster.ray_internals import WorkerHealthCheckTimeoutError
from llm4seg.utils.errors import UserError

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
        return TrainingFailed(f"the training could not go on: {last_line(error)}")
    return TrainingFailed(failed_too_often(root_cause(failures.values()), retries))


def failed_too_often(line: str, retries: int) -> str:
    return f"a worker failed more often than cluster.max_failures = {retries} allows: {line}"


def root_cause(errors: Iterable[BaseException]) -> str:
    """Of several workers' errors the first that is not just another one's echo."""
    lines = [last_line(error) for error in errors]
    return next((line for line in lines if not any(word in line for word in SECONDARY_ERRORS)), lines[0])


def last_line(error: BaseException) -> str:
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
