"""Hang timeout: ends a worker that makes no step for `cluster.timeout` seconds."""

import faulthandler

STDERR = 2  # Ray writes a worker's stderr to its log


class HangTimeout:
    """Ends this process, with all threads' stacks on stderr, when `rearm` was not called for `seconds`; None: never.

    The timer is no Python thread, so it also ends a worker that hangs in C code. Ray then restarts the training from
    its last checkpoint; an upload in progress is lost, as with any worker that dies. A suspended process cannot end
    itself: Ray's health check ends it after the same time (see `build_trainer`).
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def rearm(self) -> None:
        """Restart the timer."""
        if self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=STDERR)

    def cancel(self) -> None:
        faulthandler.cancel_dump_traceback_later()
