"""The run of a Ray Train worker: checkpoints in Ray's storage, and the control signals between two steps."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import get_device
from ray.util.queue import Queue

from llm4seg.cluster.hang_timeout import HangTimeout
from llm4seg.cluster.progress import STEP_INTERVAL
from llm4seg.cluster.ray_internals import check_same_storage
from llm4seg.cluster.stop_signal import StopSignal
from llm4seg.cluster.storage import RunFolder, Uploads, retrying, sweep, write_checkpoint
from llm4seg.config.schema import Cluster
from llm4seg.training.live import Live, Step
from llm4seg.training.run import CHECKPOINT, CONTINUE, STOP, SYNC, Row

SYNC_INTERVAL = 10.0  # seconds between two checks, by all workers together, whether a node is draining


class RayRun:
    """The run of a Ray Train worker. Rank 0 writes checkpoints; uploads run while training goes on, with retries.

    A context manager: inside it, a worker that makes no step for `cluster.timeout` seconds is ended.
    """

    def __init__(self, section: Cluster, stop_signal: StopSignal, measured: Row, steps: Queue | None = None) -> None:
        """`measured`, the measurements of the model, is added to each row; `steps`: where now and then a step goes."""
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self.device: torch.device = get_device()
        self._section, self._stop_signal = section, stop_signal
        self._measured = measured
        self._storage = context.get_storage()
        self._folder = RunFolder(self._storage.storage_filesystem, self._storage.experiment_fs_path)
        self._uploads = Uploads(self._folder, section.keep, section.storage_patience)
        self._saved = self._synced = time.monotonic()
        self._steps, self._advanced = steps, 0.0
        self._warned = False
        self._reported = 0
        self._sent: dict[str, Any] = {}  # with the next report: log lines, what a validation tells
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
        # not Ray's own list, which lacks a checkpoint whose upload ended just before the controller died
        timeout = self._section.storage_patience
        names = retrying(timeout)(self._folder.checkpoints) if self.rank == 0 else None
        for name in broadcast_from_rank_zero(names):
            yield self._folder.open(name, timeout)

    def report(self, row: Row | None, save: Callable[[Path], None]) -> None:
        ray.train.report(
            (row or {"within_epoch": True}) | self._measured | self._sent,
            checkpoint=Checkpoint.from_directory(write_checkpoint(save)) if self.rank == 0 else None,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._upload,
        )
        self._reported += 1
        self._saved, self._sent = time.monotonic(), {}
        self._hang_timeout.rearm()

    def log(self, line: str) -> None:
        self._sent.setdefault("lines", []).append(line)

    def show(self, live: Live) -> None:
        if self.rank == 0:
            self._sent["live"] = asdict(live)

    def advance(self, step: Step) -> None:
        now = time.monotonic()
        if self.rank == 0 and self._steps is not None and now - self._advanced >= STEP_INTERVAL:
            self._advanced = now
            self._steps.actor.put_nowait.remote(step)  # nobody waits for it

    def control_signal(self) -> int:
        """The control signal of rank 0, from the stop signal and the time; CONTINUE on other ranks."""
        self._hang_timeout.rearm()
        if self.rank != 0:
            return CONTINUE
        if self._stop_signal.stop_requested():
            return STOP
        now, minutes = time.monotonic(), self._section.checkpoint_minutes
        uploaded = self._reported == len(self._uploads.names)  # before that, another checkpoint would only wait
        if minutes and uploaded and now - self._saved > 60 * minutes:
            return CHECKPOINT
        return CONTINUE if self._warned or now - self._synced < SYNC_INTERVAL else SYNC

    def sync_control(self) -> int:
        """CHECKPOINT once when a node is draining, else CONTINUE; Ray then restarts the workers on other nodes."""
        self._warned = ray.train.get_preemption_info() is not None
        self._synced = time.monotonic()
        return CHECKPOINT if self._warned else CONTINUE

    def _upload(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        retrying(self._section.storage_patience)(check_same_storage, self._storage)
        self._uploads.upload(Path(checkpoint.path), name)
        # Ray accepts only checkpoints in its own folder; nothing here reads this path
        return Checkpoint(self._storage.build_checkpoint_path_from_name(name), self._storage.storage_filesystem)
