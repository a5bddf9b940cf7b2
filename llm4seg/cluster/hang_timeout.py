"""The end of a worker that hangs: no step for `cluster.timeout` seconds, whatever it waits for."""

import faulthandler

STDERR = 2  # Ray keeps what a worker writes there in its log


class HangTimeout:
    """Ends this process, with all threads' stacks on stderr, when `rearm` was not called for `seconds`; None: never.

    The timer is no Python thread, so it also ends a worker that is stuck in C code and never raises. Ray then starts
    the training again from its last checkpoint; one that is just being uploaded is lost, as with any worker that dies.
    A process that is stopped cannot end itself: Ray's health check does, in the same time (see `train_on_ray`).
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def rearm(self) -> None:
        """Begin to count anew."""
        if self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=STDERR)

    def cancel(self) -> None:
        faulthandler.cancel_dump_traceback_later()
