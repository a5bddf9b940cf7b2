"""The stop signal: requests that a training saves a checkpoint and stops. Without Ray."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from llm4seg.utils.errors import StopRequested

log = logging.getLogger(__name__)

RESEND_INTERVAL = 1.0  # seconds
SAVED = "a checkpoint is saved; run it again to go on from there"


class StopSignal(Protocol):
    """A flag that is set by the process that started a training and polled by its workers."""

    def request_stop(self) -> bool:
        """Set the flag; returns whether a worker has polled it before. May be called again; raises if it is not set."""

    def stop_requested(self) -> bool:
        """Whether to stop; workers poll between two steps."""


class LocalStopSignal:
    """A flag for a training in this process."""

    def __init__(self) -> None:
        self._requested = self._polled = False

    def request_stop(self) -> bool:
        self._requested = True
        return self._polled

    def stop_requested(self) -> bool:
        self._polled = True
        return self._requested


@contextmanager
def stop_on_sigterm(stop_signal: StopSignal) -> Iterator[None]:
    """Make SIGTERM request a stop instead of ending this process; does nothing outside of the main thread.

    A SIGTERM before any worker has polled, one that cannot be passed on, and a second one raise StopRequested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main, received, ended = threading.get_ident(), threading.Event(), threading.Event()

    def send() -> None:
        if not _heard(stop_signal) and not ended.is_set():
            signal.pthread_kill(main, signal.SIGTERM)
        while not ended.wait(RESEND_INTERVAL):  # a flag whose process was started again has forgotten it
            _heard(stop_signal)

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        if received.is_set():
            raise StopRequested("it did not wait for its workers; run it again to go on from the last checkpoint")
        received.set()
        threading.Thread(target=send, daemon=True).start()  # a handler must not wait for Ray

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        ended.set()
        signal.signal(signal.SIGTERM, before)


def _heard(stop_signal: StopSignal) -> bool:
    """Request a stop; returns whether workers will hear of it."""
    try:
        return stop_signal.request_stop()
    except Exception as error:  # Ray's, of many kinds
        log.debug("the request to stop could not be passed on: %s", error)
        return False
