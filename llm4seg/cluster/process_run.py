"""`fit` in this process, without Ray: for `cluster.launcher: process`, and for trials with one worker."""

import gc
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from llm4seg.cluster.hang_timeout import HangTimeout
from llm4seg.cluster.out_of_memory import explained_out_of_memory
from llm4seg.cluster.progress import STEP_INTERVAL
from llm4seg.cluster.runs import Outcome, final_weights, run_folder
from llm4seg.cluster.stop_signal import SAVED, LocalStopSignal, StopSignal
from llm4seg.cluster.storage import RunFolder, Uploads, new_checkpoint_name, retrying, sweep, write_checkpoint
from llm4seg.config import Config
from llm4seg.config.schema import Cluster
from llm4seg.runtime.device import default_device
from llm4seg.training.costs import profile_model
from llm4seg.training.engines.deepspeed_internals import restore_linear
from llm4seg.training.live import Live, Step
from llm4seg.training.run import CHECKPOINT, CONTINUE, STOP, Event, Row, start_group_of_one
from llm4seg.training.trainer import fit
from llm4seg.utils.allocator import keep_freed_memory
from llm4seg.utils.errors import InputError, StopRequested

log = logging.getLogger(__name__)


class ProcessRun:
    """A run with one worker, this process. Uploads checkpoints while training goes on, under the same names as on Ray.

    A context manager: inside it, a step that takes longer than `cluster.timeout` seconds ends the process.
    """

    rank = local_rank = 0
    world_size = 1

    def __init__(
        self,
        section: Cluster,
        folder: RunFolder,
        device: torch.device,
        stop_signal: StopSignal,
        handle: Callable[[Event], None],
        measured: Row,
    ) -> None:
        """`handle` receives every event; `measured`, the measurements of the model, is added to each row."""
        self.device = device
        self._section, self._folder, self._stop_signal = section, folder, stop_signal
        self._handle, self._measured = handle, measured
        self._uploads = Uploads(folder, section.keep, section.storage_patience)
        self._uploader = ThreadPoolExecutor(max_workers=1)
        self._upload: Future[None] | None = None
        self._saved, self._advanced = time.monotonic(), 0.0
        self._hang_timeout = HangTimeout(section.timeout)

    @property
    def newest(self) -> str:
        """The name of the last checkpoint."""
        return self._uploads.names[-1]

    def __enter__(self) -> Self:
        sweep()
        self._hang_timeout.rearm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the last upload; raise its error unless the training itself failed."""
        self._hang_timeout.cancel()  # an upload has a limit of its own, `cluster.storage_patience`
        self._uploader.shutdown()
        if self._upload is not None and (error is None or isinstance(error, StopRequested)):
            self._upload.result()

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        timeout = self._section.storage_patience
        for name in retrying(timeout)(self._folder.checkpoints):
            yield self._folder.open(name, timeout)

    def report(self, row: Row | None, save: Callable[[Path], None]) -> None:
        if self._upload is not None:
            self._hang_timeout.cancel()
            self._upload.result()  # one at a time, so that temporary files do not pile up
        self._upload = self._uploader.submit(self._send, write_checkpoint(save), new_checkpoint_name())
        if row is not None:
            self._handle(row | self._measured)
        self._saved = time.monotonic()
        self._hang_timeout.rearm()

    def _send(self, checkpoint: Path, name: str) -> None:
        try:
            self._uploads.upload(checkpoint, name)
        finally:
            shutil.rmtree(checkpoint)

    def log(self, line: str) -> None:
        self._handle(line)

    def show(self, live: Live) -> None:
        self._handle(live)

    def advance(self, step: Step) -> None:
        now = time.monotonic()
        if now - self._advanced >= STEP_INTERVAL:
            self._advanced = now
            self._handle(step)

    def control_signal(self) -> int:
        self._hang_timeout.rearm()
        if self._stop_signal.stop_requested():
            return STOP
        uploaded = self._upload is None or self._upload.done()  # before that, another checkpoint would only wait
        minutes = self._section.checkpoint_minutes
        if minutes and uploaded and time.monotonic() - self._saved > 60 * minutes:
            return CHECKPOINT
        return CONTINUE

    def sync_control(self) -> int:
        return CONTINUE


def train_in_process(
    config: Config,
    name: str,
    handle: Callable[[Event], None],
    stop_signal: StopSignal | None = None,
    initial: str | None = None,
    measure: bool = False,
    device: torch.device | None = None,
    run_type: type[ProcessRun] = ProcessRun,
) -> Outcome:
    """Train a run in this process; goes on from its last checkpoint when it was interrupted.

    `initial`: the name of a finished run with the initial weights; `measure`: also measure the model's parameters and
    latency; `device`: by default that of `cluster.device`. Raises StopRequested when the stop signal was set, after
    saving a checkpoint, and UserError when the config cannot be trained. After any other error, another call goes on
    from the last checkpoint.
    """
    start, folder = time.monotonic(), run_folder(config, name)
    device = device or chosen_device(config.cluster)
    start_group_of_one(device)
    if device.type == "cpu":
        keep_freed_memory()
    with chosen_threads(config.cluster), explained_out_of_memory():
        log.debug("run %s: trains on %s, in %d threads", name, device, torch.get_num_threads())
        weights = final_weights(config, initial) if initial else None
        measured = profile_model(config, device) if measure else {}
        run = run_type(config.cluster, folder, device, stop_signal or LocalStopSignal(), handle, measured)
        try:
            with run:
                history = fit(config, run, weights)
        except StopRequested as stop:
            # `fit` raises it without a message once a checkpoint is saved; a second SIGTERM has a message of its own
            raise (stop if stop.args else StopRequested(SAVED)) from None
        finally:
            release_memory()
    seconds, engine, timeout = time.monotonic() - start, config.engine.resolve(1).name, config.cluster.storage_patience
    return Outcome(history, seconds, engine, measured, folder, run.newest, timeout)


def release_memory() -> None:
    """Free the memory of a training for the next task of this process: its evaluation, or another run."""
    restore_linear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def chosen_device(section: Cluster) -> torch.device:
    """The device of `cluster.device`. Raises InputError where it is cuda and torch finds no GPU."""
    device = default_device(section)
    if section.device == "cuda" and device.type != "cuda":
        raise InputError("cluster.device: found cuda, but this machine has no GPU that torch can use")
    return device


@contextmanager
def chosen_threads(section: Cluster) -> Iterator[None]:
    """Set torch's number of threads as on Ray, which decides the order of sums: `cluster.cpus_per_worker`, or all.

    Keeps OMP_NUM_THREADS where the environment has it, as Ray sets it for workers.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(section.cpus_per_worker or os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
