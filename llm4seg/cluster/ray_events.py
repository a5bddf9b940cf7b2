"""Events of a training on Ray, sent to the process that started it: rows of epochs, log lines, worker failures."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from ray.exceptions import RayActorError
from ray.train import Checkpoint, UserCallback
from ray.util.queue import Queue

from llm4seg.cluster.failures import root_cause
from llm4seg.cluster.ray_stop_signal import on_this_node
from llm4seg.training.live import Live
from llm4seg.training.run import Event
from llm4seg.utils.logs import Warned

log = logging.getLogger(__name__)


class _SendEvents(UserCallback):
    """Callback that puts events into a queue. Runs in Ray's controller, which may be on another node."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        for line in metrics[0].get("lines", ()):
            self.queue.put(line)
        if "live" in metrics[0]:
            self.queue.put(Live.parse(metrics[0]["live"]))
        if "epoch" in metrics[0]:  # not a checkpoint within an epoch
            self.queue.put({name: value for name, value in metrics[0].items() if name not in ("lines", "live")})

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        self.queue.put(Warned(f"a worker failed: {root_cause(worker_exceptions.values())}"))


@contextmanager
def ray_events(handle: Callable[[Event], None]) -> Iterator[_SendEvents]:
    """A callback for `train_on_ray`; `handle` receives each event in a thread of this process."""
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    thread = Thread(target=_handle_events, args=(queue, handle), daemon=True)
    thread.start()
    try:
        yield _SendEvents(queue)
    finally:
        with suppress(RayActorError):  # the queue's actor is dead, which the thread has printed
            queue.put(None)
        thread.join()
        queue.shutdown(force=True)


def _handle_events(queue: Queue, handle: Callable[[Event], None]) -> None:
    try:
        while (event := queue.get()) is not None:
            handle(event)
    except RayActorError as error:
        log.warning(f"train: no more news of the workers: {root_cause([error])}")
