"""Ends a worker that hangs: no step for too long, whatever it waits for."""

import faulthandler
import sys
import threading
import time

from ray.train.v2._internal.execution.context import get_train_context

CHECK = 0.2  # of the allowed time: how often it looks


class Hung(RuntimeError):
    """A worker did not finish a step in the time allowed."""


class Watchdog:
    """A thread that fails this worker when `alive` was not called for `timeout` seconds; None: never.

    The worker's own thread may be stuck where no exception reaches it, so the failure is handed to Ray, which then
    ends the worker's process and starts the training again from its last checkpoint.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._last = time.monotonic()
        if timeout is not None:
            failed = get_train_context().execution_context.training_thread_runner.get_exception_queue()
            threading.Thread(target=self._watch, args=(failed,), daemon=True).start()

    def alive(self) -> None:
        self._last = time.monotonic()

    def _watch(self, failed: object) -> None:
        assert self._timeout is not None
        while (silent := time.monotonic() - self._last) < self._timeout:
            time.sleep(min(self._timeout * CHECK, self._timeout - silent))
        faulthandler.dump_traceback(sys.stderr)
        failed.put(Hung(f"a worker made no step for {silent:.0f} s (cluster.timeout is {self._timeout:g} s)"))  # type: ignore[attr-defined]
