"""Progress of a training, printed by the process that started it: a line per epoch, and log lines. Without Ray.

On a terminal, also a line that moves with the steps of the epoch under way.
"""

import logging
import time

from rich.console import Console
from rich.live import Live as Line

from llm4seg.training.live import Step
from llm4seg.training.run import Event, Row
from llm4seg.utils.logs import is_quiet, level_of

log = logging.getLogger(__name__)

STEP_INTERVAL = 0.5  # seconds from one step that is told to the next


class EpochPrinter:
    """Prints the events of a training: the row of an epoch that has ended, a log line; on a terminal also steps."""

    def __init__(self, epochs: int, console: Console | None = None) -> None:
        self._epochs = epochs
        self._before: float | None = None
        self._console = console or Console(stderr=True)
        self._line: Line | None = None
        self._first: tuple[Step, float] | None = None  # of the steps told of the epoch under way, and when

    @property
    def draws_steps(self) -> bool:
        """Whether there is a terminal to draw them on, and it is not quiet."""
        return self._console.is_terminal and not is_quiet()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            if self.draws_steps:
                self._draw_step(event)
        elif isinstance(event, str):
            self.close()
            log.log(level_of(event), f"train: {event}")
        elif isinstance(event, dict):
            self.close()
            self._print_row(event)

    def close(self) -> None:
        """Take the line of steps away; the next step draws another."""
        if self._line is not None:
            self._line.stop()
        self._line = self._first = None

    def _draw_step(self, step: Step) -> None:
        now = time.monotonic()
        if self._first is None or self._first[0].epoch != step.epoch:
            self._first = step, now
        if self._line is None:
            self._line = Line(console=self._console, auto_refresh=False, transient=True)
            self._line.start()
        self._line.update(self._describe(step, now), refresh=True)

    def _describe(self, step: Step, now: float) -> str:
        """The line of a step; the rate is that since the first step told of this epoch."""
        assert self._first is not None
        first, began = self._first
        text = f"epoch {step.epoch}/{self._epochs}  step {step.step}/{step.steps}  loss {step.loss:.4f}"
        if (done := step.step - first.step) and now > began:
            rate = done / (now - began)  # steps a second
            text += f"  {rate * step.images:.1f} images/s  {(step.steps - step.step) / rate:.0f} s left in this epoch"
        return text

    def _print_row(self, row: Row) -> None:
        now, epochs, epoch = time.monotonic(), self._epochs, int(row["epoch"])
        left = f"{(epochs - epoch) * (now - self._before):5.0f} s left" if self._before else ""
        self._before = now
        validated = ""
        if "val_dice" in row:  # see `training.validate_every`
            validated = f"val loss {row['val_loss']:.4f}  val Dice {row['val_dice']:.4f}  "
        log.info(f"epoch {epoch:{len(str(epochs))}d}/{epochs}  loss {row['train_loss']:.4f}  {validated}{left}")
