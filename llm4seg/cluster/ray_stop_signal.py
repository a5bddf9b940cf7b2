"""The stop signal of a training on Ray: set where it was started, polled by its workers wherever they are."""

import time
from copy import copy
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

INTERVAL = 1.0  # seconds between two polls of one worker


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


class RayStopSignal:
    """A flag in an actor on this node. Can be pickled."""

    def __init__(self) -> None:
        self._flags: Any = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_StopFlags).remote()
        self._number = 0
        self._reset()

    def _reset(self) -> None:
        self._requested, self._polled = False, -INTERVAL

    def new(self) -> Self:
        """Another signal in the same actor, which costs no process."""
        other = copy(self)
        other._number += 1
        other._reset()
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_polled": -INTERVAL}  # another machine has another clock

    def request_stop(self) -> bool:
        """Whether a worker may see it: one has polled before."""
        self._requested = True
        return bool(ray.get(self._flags.request_stop.remote(self._number)))

    def stop_requested(self) -> bool:
        """Asks the actor at most once an INTERVAL, so that it may be polled at every step."""
        if not self._requested and time.monotonic() - self._polled >= INTERVAL:
            self._requested = bool(ray.get(self._flags.stop_requested.remote(self._number)))
            self._polled = time.monotonic()
        return self._requested
