"""The stop signal of a training on Ray: set by the process that started it, polled by its workers on any node."""

import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

INTERVAL = 1.0  # seconds between two polls of one worker
PATIENCE = 30.0  # seconds in which the flag's process answers, also if it is started again meanwhile
POLL_PATIENCE = 5.0  # likewise, for a worker, which trains on and polls again


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """The scheduling strategy of an actor on this node, which lives as long as the process that started it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class _StopFlag:
    def __init__(self) -> None:
        # what was polled before its process ended is forgotten: better to wait for workers that may not listen yet
        self._requested, self._polled = False, ray.get_runtime_context().was_current_actor_reconstructed

    def request_stop(self) -> bool:
        """Set the flag; returns whether a worker has polled it before."""
        self._requested = True
        return self._polled

    def stop_requested(self) -> bool:
        self._polled = True
        return self._requested


class RayStopSignal:
    """A flag in an actor on this node. Picklable.

    Ray starts the actor again where its process ends, and repeats calls that did not reach it: both are harmless.
    """

    def __init__(self) -> None:
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": on_this_node()}
        self._flag: Any = ray.remote(**options)(_StopFlag).remote()
        self._requested, self._polled = False, -INTERVAL

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_polled": -INTERVAL}  # another machine has another clock

    def request_stop(self) -> bool:
        """Set the flag; returns whether a worker has polled it before.

        Raises Ray's GetTimeoutError or RayActorError where the flag cannot be reached for PATIENCE seconds.
        """
        self._requested = True
        return bool(ray.get(self._flag.request_stop.remote(), timeout=PATIENCE))

    def stop_requested(self) -> bool:
        """Whether to stop; polls the actor at most once per INTERVAL, so that every step may call it.

        An actor that cannot be reached has not asked for a stop yet.
        """
        if not self._requested and time.monotonic() - self._polled >= INTERVAL:
            with suppress(GetTimeoutError, RayActorError):  # no reason to end a training: the next poll may reach it
                self._requested = bool(ray.get(self._flag.stop_requested.remote(), timeout=POLL_PATIENCE))
            self._polled = time.monotonic()
        return self._requested
