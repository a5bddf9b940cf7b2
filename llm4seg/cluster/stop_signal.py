"""How whoever started a training tells its workers, wherever they are, to save a checkpoint and leave."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from types import FrameType
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from llm4seg.utils.errors import Left


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Where an actor lives no shorter than the one who started it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class _Tower:
    def __init__(self) -> None:
        self._rung: set[int] = set()
        self._listened: set[int] = set()

    def ring(self, number: int) -> bool:
        """Whether anybody has ever listened."""
        self._rung.add(number)
        return number in self._listened

    def has_rung(self, number: int) -> bool:
        self._listened.add(number)
        return number in self._rung


class Bell:
    """Rung by the one who started a training, heard by its workers. Can be pickled."""

    def __init__(self) -> None:
        self._tower: Any = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_Tower).remote()
        self._number = 0

    def another(self) -> Self:
        """A bell of its own in the same tower, which costs no process."""
        other = copy(self)
        other._number += 1
        return other

    def ring(self) -> bool:
        """Whether a worker may hear it: one has listened before."""
        return bool(ray.get(self._tower.ring.remote(self._number)))

    def has_rung(self) -> bool:
        return bool(ray.get(self._tower.has_rung.remote(self._number)))


@contextmanager
def rung_by_sigterm(bell: Bell) -> Iterator[None]:
    """Let SIGTERM ring the bell instead of ending this process. In another thread than the main one: do nothing.

    Where nobody hears it, since no worker has begun yet, it raises Left; and so does a second SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main, rung = threading.get_ident(), threading.Event()

    def ring() -> None:
        if not bell.ring():
            signal.pthread_kill(main, signal.SIGTERM)

    def heed(signum: int, frame: FrameType | None) -> None:
        if rung.is_set():
            raise Left("it did not wait for its workers; run it again to go on from the last checkpoint")
        rung.set()
        threading.Thread(target=ring, daemon=True).start()  # a handler must not wait for Ray

    before = signal.signal(signal.SIGTERM, heed)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
