"""How a training on the cluster gets on, told where it was started: one line an epoch."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from ray.exceptions import RayActorError
from ray.train import Checkpoint, UserCallback
from ray.util.queue import Queue

from llm4seg.cluster.failures import root_cause
from llm4seg.cluster.stop_signal import on_this_node


class _SendRows(UserCallback):
    """Runs in Ray's controller, wherever that is; the queue brings the rows home."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        for line in metrics[0].get("said", ()):
            self._queue.put(line)
        if "epoch" in metrics[0]:  # not a checkpoint within an epoch
            self._queue.put(metrics[0])

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        self._queue.put(f"a worker failed: {root_cause(worker_exceptions.values())}")


@contextmanager
def progress(epochs: int) -> Iterator[UserCallback]:
    """Lend a callback for `train_on_ray` that prints here the epochs as they end, and what workers say and suffer."""
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    printing = Thread(target=_print_rows, args=(queue, epochs), daemon=True)
    printing.start()
    try:
        yield _SendRows(queue)
    finally:
        with suppress(RayActorError):  # the queue is dead, which the thread has told
            queue.put(None)
        printing.join()
        queue.shutdown(force=True)


def _next(queue: Queue) -> Any:
    try:
        return queue.get()
    except RayActorError as error:
        print(f"train: no more news of the workers: {root_cause([error])}", file=sys.stderr, flush=True)
        return None


def _print_rows(queue: Queue, epochs: int) -> None:
    before = None
    while (row := _next(queue)) is not None:
        if isinstance(row, str):
            print(f"train: {row}", file=sys.stderr, flush=True)
            continue
        now = time.monotonic()
        left = f"{(epochs - row['epoch']) * (now - before):5.0f} s left" if before else ""
        before = now
        print(
            f"epoch {row['epoch']:{len(str(epochs))}d}/{epochs}  loss {row['train_loss']:.4f}  "
            f"val loss {row['val_loss']:.4f}  val Dice {row['val_dice']:.4f}  {left}",
            flush=True,
        )
