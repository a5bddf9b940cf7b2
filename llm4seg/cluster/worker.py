"""The run of one Ray Train worker: checkpoints through Ray's storage, and what may come between two steps."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import get_device

from llm4seg.cluster.hang_timeout import HangTimeout
from llm4seg.cluster.ray_internals import check_same_storage
from llm4seg.cluster.stop_signal import StopSignal
from llm4seg.cluster.storage import RunFolder, make_temporary_folder, retrying, sweep
from llm4seg.config.schema import Cluster
from llm4seg.training.run import CHECKPOINT, CONTINUE, STOP, SYNC, Row

LISTEN = 1.0  # seconds between two questions whether to leave
TALKS = 10.0  # seconds between two questions to Ray whether a node will be taken away, which all workers ask together


class RayRun:
    """Checkpoints are written by rank 0 and uploaded while training goes on; a busy storage is tried again.

    A context: inside it, a worker that makes no step for `cluster.timeout` is ended.
    """

    def __init__(
        self, section: Cluster, stop_signal: StopSignal, name: str | None = None, facts: Row | None = None
    ) -> None:
        """`name`: of the run, if its workers did others before; `facts` ride along with each report."""
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self.device: torch.device = get_device()
        self._section, self._stop_signal = section, stop_signal
        self._facts = facts or {}
        self._storage = context.get_storage()  # Ray's own, for all that these workers do
        files, path = self._storage.storage_filesystem, self._storage.experiment_fs_path
        self._folder = RunFolder(files, path if name is None else f"{self._storage.storage_fs_path}/{name}")
        self._saved = self._listened = self._talked = time.monotonic()
        self._warned = False
        self._reported = 0
        self._uploaded: list[str] = []  # names of checkpoints, by this worker
        self._said: list[str] = []  # goes home with the next report
        self._hang_timeout = HangTimeout(section.timeout)

    def __enter__(self) -> Self:
        sweep()
        self._hang_timeout.rearm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hang_timeout.cancel()

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        # not Ray's own list, which forgets a checkpoint whose upload ended just before the controller died
        patience = self._section.storage_patience
        names = retrying(patience)(self._folder.checkpoints) if self.rank == 0 else None
        for name in broadcast_from_rank_zero(names):
            yield self._folder.open(name, patience)

    def report(self, row: Row | None, save: Callable[[Path], None]) -> None:
        ray.train.report(
            (row or {"within_epoch": True}) | self._facts | ({"said": self._said} if self._said else {}),
            checkpoint=_written(save) if self.rank == 0 else None,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._upload,
        )
        self._reported += 1
        self._saved, self._said = time.monotonic(), []
        self._hang_timeout.rearm()

    def log(self, line: str) -> None:
        self._said.append(line)

    def control_signal(self) -> int:
        """Rank 0 listens for the stop_signal, and knows what is due by the clock."""
        self._hang_timeout.rearm()
        if self.rank != 0:
            return CONTINUE
        now, minutes = time.monotonic(), self._section.checkpoint_minutes
        if now - self._listened > LISTEN:
            self._listened = now
            if self._stop_signal.stop_requested():
                return STOP
        # while one is on its way to the storage, another would only wait behind it
        if minutes and now - self._saved > 60 * minutes and self._reported == len(self._uploaded):
            return CHECKPOINT
        return CONTINUE if self._warned or now - self._talked < TALKS else SYNC

    def sync_control(self) -> int:
        """Save once when a node is about to be taken away; Ray then starts the workers again elsewhere."""
        self._warned = ray.train.get_preemption_info() is not None
        self._talked = time.monotonic()
        return CHECKPOINT if self._warned else CONTINUE

    def _upload(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        """Copy a checkpoint to the storage, again and again for a while if it refuses, and delete older ones."""
        patience = self._section.storage_patience
        retrying(patience)(self._store, Path(checkpoint.path), name)
        self._uploaded.append(name)
        retrying(patience)(self._prune)
        # Ray believes in no checkpoint outside of its own folder; here nobody asks it for one
        return Checkpoint(self._storage.build_checkpoint_path_from_name(name), self._storage.storage_filesystem)

    def _store(self, checkpoint: Path, name: str) -> None:
        check_same_storage(self._storage)
        self._folder.take(checkpoint, name)

    def _prune(self) -> None:
        """Delete all checkpoints but the newest ones, once this worker knows enough of them to be whole."""
        if len(self._uploaded) >= self._section.keep:
            for name in set(self._folder.checkpoints()) - set(self._uploaded[-self._section.keep :]):
                self._folder.delete_checkpoint(name)


def _written(save: Callable[[Path], None]) -> Checkpoint:
    """A checkpoint in a temporary folder, which Ray deletes once it is uploaded."""
    folder = make_temporary_folder()
    try:
        save(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return Checkpoint.from_directory(folder)
