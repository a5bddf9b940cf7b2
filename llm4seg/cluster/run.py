"""The run of one Ray Train worker: checkpoints through Ray's storage, and what may come between two steps."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import ray.train
import tenacity
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.torch import get_device

from llm4seg.cluster.bell import Bell
from llm4seg.cluster.watchdog import Watchdog
from llm4seg.run import GO_ON, LEAVE, SAVE, Row
from llm4seg.sections import Cluster

LISTEN = 1.0  # seconds between two questions whether to leave
PREEMPTION_STEPS = 20  # every worker asks Ray for a notice at every so many steps, since all must ask together


class RayRun:
    """Checkpoints are written by rank 0 and uploaded while training goes on; a busy storage is tried again."""

    def __init__(self, section: Cluster, bell: Bell) -> None:
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self.device: torch.device = get_device()
        self._section, self._bell = section, bell
        self._saved = self._listened = time.monotonic()
        self._steps, self._warned = 0, False
        self._watchdog = Watchdog(section.timeout)

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        latest = ray.train.get_checkpoint()
        if latest is None:
            return
        reported = [one.checkpoint for one in ray.train.get_all_reported_checkpoints() if one.checkpoint]
        before = [one for one in reversed(reported) if one.path != latest.path]
        for checkpoint in (latest, *before):
            yield _lent(checkpoint)

    def report(self, row: Row | None, save: Callable[[Path], None]) -> None:
        checkpoint = None
        if self.rank == 0:
            folder = Path(tempfile.mkdtemp(prefix="llm4seg-checkpoint-"))
            save(folder)
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(
            row or {"within_epoch": True},
            checkpoint=checkpoint,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=self._upload,
        )
        self._saved = time.monotonic()
        self._watchdog.alive()

    def asks(self) -> int:
        self._watchdog.alive()
        self._steps += 1
        return max(self._by_the_clock(), self._by_preemption())

    def _by_the_clock(self) -> int:
        """Rank 0 listens for the bell, and knows when the next checkpoint is due."""
        now, minutes = time.monotonic(), self._section.checkpoint_minutes
        if self.rank == 0 and now - self._listened > LISTEN:
            self._listened = now
            if self._bell.has_rung():
                return LEAVE
        return SAVE if self.rank == 0 and minutes and now - self._saved > 60 * minutes else GO_ON

    def _by_preemption(self) -> int:
        """Save once when a node is about to be taken away; Ray then starts the workers again elsewhere."""
        if self._warned or self._steps % PREEMPTION_STEPS:
            return GO_ON
        self._warned = ray.train.get_preemption_info() is not None
        return SAVE if self._warned else GO_ON

    def _upload(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        """Copy a checkpoint to the storage, again and again for a while if it refuses."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(OSError),
            wait=tenacity.wait_exponential(multiplier=0.5, max=15),
            stop=tenacity.stop_after_delay(self._section.storage_patience),
            reraise=True,
        )
        storage = ray.train.get_context().get_storage()
        stored: Checkpoint = retrying(storage.persist_current_checkpoint, checkpoint, name)
        return stored


@contextmanager
def _lent(checkpoint: Checkpoint) -> Iterator[Path]:
    with checkpoint.as_directory() as folder:
        yield Path(folder)
