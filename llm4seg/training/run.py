"""`Run`: the interface between a training and its launcher; `LocalRun`: one worker, in this process."""

import atexit
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from llm4seg.training.live import Live, Step
from llm4seg.utils.files import remove, replacing
from llm4seg.utils.logs import level_of

log = logging.getLogger(__name__)

Row = dict[str, float]
# the row of an epoch that has ended, a log line, what a validation tells beside its row, or now and then a step
Event = Row | str | Live | Step
# control signals between two steps; the largest over all workers is followed
CONTINUE, SYNC, CHECKPOINT, STOP = range(4)


class Run(Protocol):
    """A training's place among workers, its checkpoints and reports: `fit` does not depend on its launcher."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        """Checkpoints to resume from, the newest first: each a context manager of a local folder with its files."""

    def report(self, row: Row | None, save: Callable[[Path], None]) -> None:
        """Report an epoch's row, or None within an epoch; `save`, called on rank 0, writes the checkpoint."""

    def log(self, line: str) -> None:
        """Log a line where the run was started; a `Warned` one as a warning."""

    def show(self, live: Live) -> None:
        """Tell those who watch, of a validation; before the report of its epoch. What rank 0 tells counts."""

    def advance(self, step: Step) -> None:
        """Take note of a step; it must cost next to nothing."""

    def control_signal(self) -> int:
        """Between two steps: CONTINUE, save a CHECKPOINT, save one and STOP, or SYNC: call `sync_control`.

        Also a sign of life for the launcher.
        """

    def sync_control(self) -> int:
        """CONTINUE or CHECKPOINT, the same on every worker: a collective call."""


def start_group_of_one(device: torch.device) -> None:
    """Unless there is one: a process group with this process alone in it, as DeepSpeed and DDP need one.

    It stays until the process ends, since DeepSpeed holds on to the first that it sees.
    """
    if dist.is_initialized():
        return
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    atexit.register(_end_group)


def _end_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


class LocalRun:
    """A run in this process. Keeps its last two checkpoints in `folder`, and resumes from them."""

    rank = 0
    local_rank = 0
    world_size = 1

    def __init__(self, folder: Path, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.rows: list[dict[str, Any]] = []
        self._folder = folder

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self._folder / "checkpoint"

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        # a process that was killed between the renames below has left a complete new checkpoint
        for folder in (self._folder / "checkpoint-new", self.checkpoint, self._folder / "checkpoint-before"):
            if folder.exists():
                yield nullcontext(folder)

    def report(self, row: Row | None, save: Callable[[Path], None]) -> None:
        if row is not None:
            self.rows.append(row)
        with replacing(self._folder / "checkpoint-new") as folder:
            folder.mkdir(parents=True)
            save(folder)
        remove(self._folder / "checkpoint-before")
        if self.checkpoint.exists():
            self.checkpoint.rename(self._folder / "checkpoint-before")
        (self._folder / "checkpoint-new").rename(self.checkpoint)

    def log(self, line: str) -> None:
        log.log(level_of(line), line)

    def show(self, live: Live) -> None:
        pass

    def advance(self, step: Step) -> None:
        pass

    def control_signal(self) -> int:
        return CONTINUE

    def sync_control(self) -> int:
        return CONTINUE
