"""How whoever started a training tells its workers, wherever they are, to save a checkpoint and leave."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Where an actor lives no shorter than the one who started it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class _Tower:
    def __init__(self) -> None:
        self._rung = False

    def ring(self) -> None:
        self._rung = True

    def has_rung(self) -> bool:
        return self._rung


class Bell:
    """Rung by the one who started a training, heard by its workers. Can be pickled."""

    def __init__(self) -> None:
        self._tower: Any = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_Tower).remote()

    def ring(self) -> None:
        ray.get(self._tower.ring.remote())

    def has_rung(self) -> bool:
        return bool(ray.get(self._tower.has_rung.remote()))


@contextmanager
def rung_by_sigterm(bell: Bell) -> Iterator[None]:
    """Let SIGTERM ring the bell instead of ending this process. In another thread than the main one: do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: FrameType | None) -> None:
        threading.Thread(target=bell.ring, daemon=True).start()  # a handler must not wait for Ray

    before = signal.signal(signal.SIGTERM, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
