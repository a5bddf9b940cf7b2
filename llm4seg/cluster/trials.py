"""Trials of Ray Tune in reused processes: a run with one worker trains in the trial's process, others on Ray Train."""

import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch
from ray.tune import PlacementGroupFactory, Trainable

from llm4seg.cluster.data_sync import DataSync
from llm4seg.cluster.launch import train_on_ray
from llm4seg.cluster.process_run import ProcessRun, train_in_process
from llm4seg.cluster.ray_events import ray_events
from llm4seg.cluster.ray_internals import node_is_draining
from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.runs import Outcome, run_folder
from llm4seg.cluster.session import cpus_per_worker, gpus_per_worker, uses_gpu
from llm4seg.cluster.stop_signal import LocalStopSignal, StopSignal
from llm4seg.config import Config
from llm4seg.config.schema import Cluster
from llm4seg.training.run import CHECKPOINT, CONTINUE, Event, Row
from llm4seg.utils.errors import InputError
from llm4seg.utils.logs import configure_child, level_of

log = logging.getLogger(__name__)

DRAIN_INTERVAL = 10.0  # seconds between two checks whether this node is draining


def trial_resources(section: Cluster) -> PlacementGroupFactory:
    """The resources of a trial's process: a worker's share where it is the only worker, else almost none."""
    if section.most > 1:
        return PlacementGroupFactory([{"node:__internal_head__": 0.001}])
    gpus = gpus_per_worker(section)
    return PlacementGroupFactory([{"CPU": cpus_per_worker(section)} | ({"GPU": gpus} if gpus else {})])


class KeptTrial(Trainable):
    """A process for one trial after another, with `reuse_actors`: only the first trial waits for start and imports.

    A subclass yields the results of a trial, the last of them with `done`; its `setup` calls `begin`. Closing the
    generator of results ends the trial.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        configure_child()  # before `setup`, which Tune's __init__ calls
        super().__init__(*arguments, **options)

    def begin(self, sample: dict[str, Any]) -> None:
        """Start the trial of a sample of the search space."""
        self._results = self.results(sample)

    def results(self, sample: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        raise NotImplementedError

    def step(self) -> dict[str, Any]:
        return next(self._results)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self.begin(new_config)
        return True

    def cleanup(self) -> None:
        self._results.close()


class TrialRun(ProcessRun):
    """The run of a trial's process, which also saves a checkpoint when its node is draining."""

    _checked, _warned = 0.0, False

    def control_signal(self) -> int:
        signal, now = super().control_signal(), time.monotonic()
        if signal != CONTINUE or self._warned or now - self._checked < DRAIN_INTERVAL:
            return signal
        self._checked, self._warned = now, node_is_draining()
        return CHECKPOINT if self._warned else CONTINUE


def train_here(
    config: Config,
    name: str,
    handle: Callable[[Event], None],
    stop_signal: StopSignal,
    data: DataSync | None,
    initial: str | None = None,
    measure: bool = False,
) -> Outcome:
    """Train a run in this process, or on Ray Train where it has several workers; without pictures."""
    config = config.override({"tracking.pictures": 0})
    if config.cluster.most == 1:
        device = trial_device(config.cluster)
        return train_in_process(config, name, handle, stop_signal, initial, measure, device, TrialRun)
    with ray_events(handle) as callback:
        return train_on_ray(config, [callback], name, data, stop_signal, initial, measure)


def training_rows(
    config: Config, name: str, data: DataSync | None, initial: str | None, measure: bool
) -> Generator[Row, None, None]:
    """Train in a thread; yields the row of each epoch as it ends, then all rows, including those of earlier processes.

    Closing the generator stops the training at its next step.
    """
    stop_signal = LocalStopSignal() if config.cluster.most == 1 else RayStopSignal()
    events: SimpleQueue[Any] = SimpleQueue()
    with ThreadPoolExecutor(max_workers=1) as thread:
        training = thread.submit(train_here, config, name, events.put, stop_signal, data, initial, measure)
        training.add_done_callback(events.put)
        try:
            while (event := events.get()) is not training:
                if isinstance(event, str):
                    log.log(level_of(event), event)  # into the log of this process
                elif isinstance(event, dict):
                    yield event
        finally:
            if not training.done():
                stop_signal.request_stop()
    outcome = training.result()
    for row in outcome.history:
        yield row | outcome.measured


def check_storage_is_shared(config: Config, experiment: str) -> None:
    """Raise InputError unless this node reads the storage in which the experiment was started."""
    if not run_folder(config, experiment).files():
        raise InputError(
            f"cluster.storage: found {config.cluster.storage}, allowed: s3://bucket/prefix or a folder that all nodes "
            "share, since trials run on several nodes"
        )


def trial_device(section: Cluster) -> torch.device:
    """The device that Ray assigned to this process."""
    return torch.device("cuda" if uses_gpu(section) else "cpu")
