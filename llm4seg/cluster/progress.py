"""How a training on the cluster gets on, told where it was started: one line an epoch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from ray.train import Checkpoint, UserCallback
from ray.util.queue import Queue

from llm4seg.cluster.bell import on_this_node
from llm4seg.run import Row


class _SendRows(UserCallback):
    """Runs in Ray's controller, wherever that is; the queue brings the rows home."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_report(self, run_context: Any, metrics: list[Row], checkpoint: Checkpoint | None) -> None:
        if "epoch" in metrics[0]:  # not a checkpoint within an epoch
            self._queue.put(metrics[0])


@contextmanager
def progress(epochs: int) -> Iterator[UserCallback]:
    """Lend a callback for `train_on_ray` whose epochs are printed here as they end."""
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    printing = Thread(target=_print_rows, args=(queue, epochs), daemon=True)
    printing.start()
    try:
        yield _SendRows(queue)
    finally:
        queue.put(None)
        printing.join()
        queue.shutdown(force=True)


def _print_rows(queue: Queue, epochs: int) -> None:
    before = None
    while (row := queue.get()) is not None:
        now = time.monotonic()
        left = f"{(epochs - row['epoch']) * (now - before):5.0f} s left" if before else ""
        before = now
        print(
            f"epoch {row['epoch']:{len(str(epochs))}d}/{epochs}  loss {row['train_loss']:.4f}  "
            f"val loss {row['val_loss']:.4f}  val Dice {row['val_dice']:.4f}  {left}",
            flush=True,
        )
