"""Progress of a training, printed by the process that started it: a line per epoch, and log lines. Without Ray."""

import sys
import time

from llm4seg.training.run import Event, Row


class EpochPrinter:
    """Prints the events of a training: the row of an epoch that has ended, or a log line."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._before: float | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, str):
            print(f"train: {event}", file=sys.stderr, flush=True)
        elif isinstance(event, dict):
            self._print_row(event)

    def _print_row(self, row: Row) -> None:
        now, epochs, epoch = time.monotonic(), self._epochs, int(row["epoch"])
        left = f"{(epochs - epoch) * (now - self._before):5.0f} s left" if self._before else ""
        self._before = now
        validated = ""
        if "val_dice" in row:  # see `training.validate_every`
            validated = f"val loss {row['val_loss']:.4f}  val Dice {row['val_dice']:.4f}  "
        print(
            f"epoch {epoch:{len(str(epochs))}d}/{epochs}  loss {row['train_loss']:.4f}  {validated}{left}",
            flush=True,
        )
