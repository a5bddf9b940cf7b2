"""The stop signal of a training on Ray: set by the process that started it, polled by its workers on any node."""

import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

INTERVAL = 1.0  # seconds between two polls of one worker


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """The scheduling strategy of an actor on this node, which lives as long as the process that started it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class _StopFlag:
    def __init__(self) -> None:
        self._requested = self._polled = False

    def request_stop(self) -> bool:
        """Set the flag; returns whether a worker has polled it before."""
        self._requested = True
        return self._polled

    def stop_requested(self) -> bool:
        self._polled = True
        return self._requested


class RayStopSignal:
    """A flag in an actor on this node. Picklable."""

    def __init__(self) -> None:
        self._flag: Any = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_StopFlag).remote()
        self._requested, self._polled = False, -INTERVAL

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_polled": -INTERVAL}  # another machine has another clock

    def request_stop(self) -> bool:
        """Set the flag; returns whether a worker has polled it before."""
        self._requested = True
        return bool(ray.get(self._flag.request_stop.remote()))

    def stop_requested(self) -> bool:
        """Whether to stop; polls the actor at most once per INTERVAL, so that every step may call it."""
        if not self._requested and time.monotonic() - self._polled >= INTERVAL:
            self._requested = bool(ray.get(self._flag.stop_requested.remote()))
            self._polled = time.monotonic()
        return self._requested
