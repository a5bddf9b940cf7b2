"""Failures of a training on Ray: the root cause as a UserError of one line."""

from collections.abc import Iterable
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import ControllerError, TrainingFailedError, UserCallback

from llm4seg.cluster.ray_internals import WorkerHealthCheckTimeoutError
from llm4seg.utils.errors import UserError

SECONDARY_ERRORS = ("Connection", "gloo", "NCCL", "socket")  # in the errors of the other workers when one dies


class TrainingFailed(UserError):
    """A training failed, and restarts did not help."""


def first_fatal(errors: Iterable[BaseException]) -> UserError | None:
    """The first of several workers' errors that a restart would only repeat; None: a restart may help."""
    return next((error for error in errors if isinstance(error, UserError)), None)


class FailFast(UserCallback):
    """Ends a training when a worker raises an error that a restart would only repeat; does not wait for other workers.

    Runs in Ray's controller, which restarts workers after their own errors, and ends after an error of a callback.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if error := first_fatal(worker_exceptions.values()):
            raise error


def is_the_controllers(error: BaseException) -> bool:
    """Whether Ray's controller or one of its helpers died, or failed to use the storage: no error of a worker."""
    if isinstance(error, ControllerError):
        error = error.controller_failure
        return isinstance(error, OSError | RayActorError | OutOfMemoryError)
    return isinstance(error, RayActorError)


def to_user_error(error: TrainingFailedError | RayActorError, retries: int) -> UserError:
    """The UserError with the cause of a training's final failure."""
    if isinstance(error, ControllerError) and isinstance(error.controller_failure, UserError):
        return error.controller_failure  # from `FailFast`
    failures = getattr(error, "worker_failures", {})
    if not failures:
        return TrainingFailed(f"the training could not go on: {last_line(error)}")
    return TrainingFailed(failed_too_often(root_cause(failures.values()), retries))


def failed_too_often(line: str, retries: int) -> str:
    return f"a worker failed more often than cluster.max_failures = {retries} allows: {line}"


def root_cause(errors: Iterable[BaseException]) -> str:
    """The last line of the first of several workers' errors that is not a consequence of another worker's error."""
    lines = [last_line(error) for error in errors]
    return next((line for line in lines if not any(word in line for word in SECONDARY_ERRORS)), lines[0])


def last_line(error: BaseException) -> str:
    """The line of a remote error that names its cause: the last line of its traceback."""
    if isinstance(error, WorkerHealthCheckTimeoutError):
        return "its process hangs: it has not answered for cluster.timeout"
    if "unexpectedly exits" in str(error):  # Ray's message for a process that has ended
        return (
            "its process ended: it crashed, was killed, or made no step for cluster.timeout "
            "(then Ray's log of it ends with its stack)"
        )
    if "address the out of memory issue" in str(error):  # Ray's memory monitor, whose message has many lines
        return "the node's memory is full, so Ray ended a process; lower cluster.workers or training.batch_size"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
