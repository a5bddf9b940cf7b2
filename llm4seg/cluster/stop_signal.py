"""The stop signal: the process that started a training requests that its workers save a checkpoint and stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from types import FrameType
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from llm4seg.utils.errors import StopRequested


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Where an actor lives no shorter than the one who started it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class _StopFlags:
    def __init__(self) -> None:
        self._requested: set[int] = set()
        self._polled: set[int] = set()

    def request_stop(self, number: int) -> bool:
        """Whether any worker has ever polled."""
        self._requested.add(number)
        return number in self._polled

    def stop_requested(self, number: int) -> bool:
        self._polled.add(number)
        return number in self._requested


class StopSignal:
    """A flag set by the process that started a training and polled by its workers. Can be pickled."""

    def __init__(self) -> None:
        self._flags: Any = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_StopFlags).remote()
        self._number = 0

    def new(self) -> Self:
        """Another signal in the same actor, which costs no process."""
        other = copy(self)
        other._number += 1
        return other

    def request_stop(self) -> bool:
        """Whether a worker may see it: one has polled before."""
        return bool(ray.get(self._flags.request_stop.remote(self._number)))

    def stop_requested(self) -> bool:
        return bool(ray.get(self._flags.stop_requested.remote(self._number)))


@contextmanager
def stop_on_sigterm(stop_signal: StopSignal) -> Iterator[None]:
    """Let SIGTERM request a stop instead of ending this process. In another thread than the main one: do nothing.

    Where nobody hears it, since no worker has begun yet, it raises StopRequested; and so does a second SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main, received = threading.get_ident(), threading.Event()

    def send() -> None:
        if not stop_signal.request_stop():
            signal.pthread_kill(main, signal.SIGTERM)

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        if received.is_set():
            raise StopRequested("it did not wait for its workers; run it again to go on from the last checkpoint")
        received.set()
        threading.Thread(target=send, daemon=True).start()  # a handler must not wait for Ray

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
