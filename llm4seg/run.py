"""What a training process needs to know of where it runs, and the simplest answer: alone, in this process."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from llm4seg.files import remove, replacing

Row = dict[str, float]


class Run(Protocol):
    """Lent to `fit` by whoever launches it. `fit` never asks whether it is distributed."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    def saved(self) -> AbstractContextManager[Path | None]:
        """Lend the folder of the checkpoint to go on from, or None at a first start."""

    def report(self, row: Row, save: Callable[[Path], None]) -> None:
        """Tell the launcher how an epoch went; every rank's `save` writes its part of the checkpoint."""


@contextmanager
def group_of_one(device: torch.device) -> Iterator[None]:
    """A process group with this process alone in it, as DeepSpeed and DDP want one."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class LocalRun:
    """A run in this process. Keeps its last checkpoint in `folder`, and goes on from one found there."""

    rank = 0
    local_rank = 0
    world_size = 1

    def __init__(self, folder: Path, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.rows: list[dict[str, Any]] = []
        self._checkpoint = folder / "checkpoint"

    @contextmanager
    def saved(self) -> Iterator[Path | None]:
        yield self._checkpoint if self._checkpoint.exists() else None

    def report(self, row: Row, save: Callable[[Path], None]) -> None:
        self.rows.append(row)
        with replacing(self._checkpoint) as folder:
            folder.mkdir()
            save(folder)

    def finish(self) -> None:
        """Forget the checkpoint: the run ended well."""
        remove(self._checkpoint)
