"""A trial of a study: one of its runs, in a reused process."""

import logging
from collections.abc import Generator
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from llm4seg.cluster.data_sync import DataSync
from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.session import cpus_per_worker, gpus_per_worker
from llm4seg.cluster.trials import KeptTrial, check_storage_is_shared, train_here, trial_device
from llm4seg.config import Config
from llm4seg.study.results import finished
from llm4seg.study.run_store import RunStore
from llm4seg.study.runner import Measured, checkpoints_name, evaluate_run, keep, print_line
from llm4seg.utils.errors import StopRequested, UserError
from llm4seg.utils.logs import configure_child

log = logging.getLogger(__name__)


class StudyTrial(KeptTrial):
    """The trial of a study; writes the record of its run, metrics or an error, to the store."""

    def setup(
        self,
        config: dict[str, Any],
        jobs: dict[str, dict[str, Any]],
        experiment: str,
        store: RunStore,
        data: DataSync | None,
        stop_signal: RayStopSignal,
        commit: str,
    ) -> None:
        """`jobs`: the params of each run, by its name."""
        self._jobs, self._store = jobs, store
        self._data, self._stop_signal, self._commit = data, stop_signal, commit
        check_storage_is_shared(Config.parse(jobs[config["name"]]), experiment)  # else nobody would find its record
        self.begin(config)

    def results(self, sample: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        name = sample["name"]
        try:
            if not self._stop_signal.stop_requested():
                self._run(Config.parse(self._jobs[name]), name)
        except StopRequested:
            pass  # its checkpoint is saved
        except UserError as error:  # an arm that cannot be trained
            self._store.put(name, {"name": name, "error": str(error)})
        yield {"done": True}

    def _run(self, config: Config, name: str) -> None:
        if self._data is not None:
            config = self._data.on_this_node(config)
        outcome = train_here(config, checkpoints_name(name), print_line, self._stop_signal, self._data)
        keep(config, name, outcome, self._measured(config, name), self._commit)

    def _measured(self, config: Config, name: str) -> Measured:
        """`evaluate_run`: in this process if it has a worker's resources, else in a Ray task with them."""
        if config.cluster.most == 1:
            return evaluate_run(config, name, trial_device(config.cluster))
        cpus, gpus = cpus_per_worker(config.cluster), gpus_per_worker(config.cluster)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="DEFAULT")(_evaluate_in_task)
        measured: Measured = ray.get(task.remote(config.plain(), name, self._data))
        return measured


def _evaluate_in_task(params: dict[str, Any], name: str, data: DataSync | None) -> Measured:
    configure_child()
    config = Config.parse(params)
    if data is not None:
        config = data.on_this_node(config)
    return evaluate_run(config, name, trial_device(config.cluster))


class StudyProgress(tune.Callback, tune.Stopper):
    """Prints a line per ended run, and stops Tune after a requested stop once no run is left."""

    def __init__(self, store: RunStore, stop_signal: RayStopSignal, runs: int) -> None:
        self._store, self._stop_signal, self._runs = store, stop_signal, runs
        self._done, self._stopped = 0, False

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._store.read(trial.config["name"])
        if record is not None and finished(record):
            self._print(f"{record['seconds']:.0f} s of training")
        elif not self._stop_signal.stop_requested():
            self._print_failure()
        self._stop_after_last(trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._print_failure()
        self._stop_after_last(trials, trial)

    def _print(self, outcome: str, level: int = logging.INFO) -> None:
        self._done += 1
        log.log(level, f"study: {self._done} of {self._runs} runs: {outcome}")

    def _print_failure(self) -> None:
        self._print("failed", logging.WARNING)

    def _stop_after_last(self, trials: list[Any], ended: Any) -> None:
        """Request Tune's stop, which ends running trials at once: only when no other run may be saving a checkpoint."""
        others = any(trial.status == Trial.RUNNING for trial in trials if trial is not ended)
        self._stopped = self._stopped or (not others and self._stop_signal.stop_requested())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stopped
