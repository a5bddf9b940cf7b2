"""Ends a worker that hangs: no step for too long, whatever it waits for."""

import sys
import threading
import time
import traceback

from ray.train.v2._internal.execution.context import get_train_context


class Hung(RuntimeError):
    """A worker did not finish a step in the time allowed."""


class Watchdog:
    """A thread that fails this worker when `alive` was not called for `timeout` seconds; None: never.

    The worker's own thread may be stuck where no exception reaches it, so the failure is handed to Ray, which then
    ends the worker's process and starts the training again from its last checkpoint. A process that does not run at
    all cannot watch itself: Ray's health check does, in the same time (see `train_on_ray`).
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._stopped = threading.Event()

    def start(self) -> None:
        self.alive()
        if self._timeout is not None:
            failed = get_train_context().execution_context.training_thread_runner.get_exception_queue()
            threading.Thread(target=self._watch, args=(failed, threading.get_ident()), daemon=True).start()

    def alive(self) -> None:
        self._last = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self, failed: object, watched: int) -> None:
        assert self._timeout is not None
        while (silent := time.monotonic() - self._last) < self._timeout:
            if self._stopped.wait(self._timeout - silent):
                return
        traceback.print_stack(sys._current_frames()[watched], file=sys.stderr)
        failed.put(Hung(f"a worker made no step for {silent:.0f} s (cluster.timeout is {self._timeout:g} s)"))  # type: ignore[attr-defined]
