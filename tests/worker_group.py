"""Several training processes on this machine without a cluster: `fit` on a number of workers."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from llm4seg.config import Config
from llm4seg.training.run import CONTINUE, STOP, LocalRun, Row
from llm4seg.training.trainer import fit
from llm4seg.utils.errors import StopRequested

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preloaded"])  # imported once, not by each process
SPAWNS = multiprocessing.get_context("spawn")  # what the server of forks has imported is for the CPU
TIMEOUT = 400  # seconds


def on_group(workers: int, function: Callable[..., Any], *arguments: Any, device: str = "cpu") -> list[Any]:
    """The results of a function in each process of one group, gloo's, or NCCL's with a GPU each by `device` cuda.

    The function's first argument is the rank.
    """
    how = FORKS if device == "cpu" else SPAWNS
    with tempfile.TemporaryDirectory() as meeting, ProcessPoolExecutor(workers, how) as processes:
        started = [
            processes.submit(_member, rank, workers, meeting, device, function, arguments) for rank in range(workers)
        ]  # none is free before all have met, so each gets a process of its own
        return [one.result(timeout=TIMEOUT) for one in started]


def _member(
    rank: int, workers: int, meeting: str, device: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(workers))
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    store = dist.FileStore(f"{meeting}/group", workers)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=rank, world_size=workers)
    try:
        return function(rank, *arguments)
    finally:
        dist.barrier()  # no process ends while another still communicates
        dist.destroy_process_group()


class GroupRun(LocalRun):
    """One worker's run: rank 0 writes the checkpoints; all stop after `stop_after` steps, if given."""

    def __init__(
        self,
        rank: int,
        workers: int,
        folder: Path,
        stop_after: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(folder, device)
        self.rank, self.local_rank, self.world_size = rank, rank, workers
        self._polls, self._stop_after = 0, stop_after

    def report(self, row: Row | None, save: Any) -> None:
        if self.rank == 0:
            super().report(row, save)
        dist.barrier()

    def control_signal(self) -> int:
        self._polls += 1
        return STOP if self._polls == self._stop_after else CONTINUE


def fit_on(workers: int, config: Config, folder: Path, stop_after: int | None = None) -> list[Row]:
    """Train `config` on some workers that share nothing but a gloo group; checkpoints go to `folder`.

    `stop_after`: stop with a checkpoint after that many steps of training or validation; the result is then empty.
    """
    params = config.override({"cluster.workers": [1, workers]}).plain()
    history: list[Row] = on_group(workers, _fit, workers, params, folder, stop_after)[0]
    return history


def _fit(rank: int, workers: int, params: dict[str, Any], folder: Path, stop_after: int | None) -> list[Row]:
    try:
        return fit(Config.parse(params), GroupRun(rank, workers, folder, stop_after))
    except StopRequested:
        return []
