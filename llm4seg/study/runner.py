"""The runs of a study on Ray Tune: each is the same training as `train`, then measured case by case and kept."""

import math
import sys
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.train import Checkpoint
from ray.tune import RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from safetensors.torch import load_file

from llm4seg.cluster.data_sync import DataSync, data_sync
from llm4seg.cluster.launch import forget_run, run_name, storage, train_on_ray
from llm4seg.cluster.session import cpus_per_worker, gpus_per_worker, runs_at_once, uses_gpu
from llm4seg.cluster.stop_signal import StopSignal, stop_on_sigterm
from llm4seg.cluster.tune_output import NoTrialLines
from llm4seg.config import Config
from llm4seg.data.prepared import Case, Prepared
from llm4seg.data.split import read_split
from llm4seg.evaluation.evaluate import evaluate_case
from llm4seg.models.saved import WEIGHTS
from llm4seg.objectives.metrics import Row
from llm4seg.runtime.device import device_that_fits
from llm4seg.runtime.seeding import set_deterministic
from llm4seg.study.arms import planned_runs, write_splits
from llm4seg.study.results import Record, Runs, finished
from llm4seg.study.run_store import RunStore
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError, StopRequested
from llm4seg.utils.provenance import MEASURING, code_digest, git_commit, versions

# a trial's own process only waits for its workers: it takes none of their cores, and is where the study was started
BESIDE = {"node:__internal_head__": 0.001}


def records(config: Config) -> Runs:
    """Every run of the study with what it left, or None."""
    _check_other_data(config)
    write_splits(config)
    shelf = RunStore(config)
    return [(run, shelf.read(_name(run.config(config)))) for run in planned_runs(config)]


def run_missing(config: Config) -> None:
    """Run on the connected cluster what has not finished yet; what failed before comes last.

    An interrupted training goes on from its last checkpoint. SIGTERM lets those under way save one, and raises Left.
    """
    runs = [(run.config(config), record) for run, record in records(config)]
    waiting = [one for one in runs if one[1] is None] + [one for one in runs if one[1] and not finished(one[1])]
    jobs = {_name(job): job for job, _ in waiting}
    if not jobs:
        return
    stop_signal, shelf, experiment = StopSignal(), RunStore(config), f"study-{config.digest('study')}"
    forget_run(config, experiment)  # of a driver that was killed
    told = _RunProgress(shelf, stop_signal, len(jobs))
    trial = tune.with_parameters(
        _trial,
        jobs={name: job.plain() for name, job in jobs.items()},
        shelf=shelf,
        data=data_sync(config),
        stop_signal=stop_signal,
        commit=git_commit(Path(__file__).parent),
    )
    tuner = Tuner(
        tune.with_resources(trial, BESIDE),
        param_space={"name": tune.grid_search(list(jobs))},
        tune_config=TuneConfig(max_concurrent_trials=runs_at_once(config.cluster)),
        run_config=RunConfig(
            name=experiment, storage_path=storage(config), verbose=0, callbacks=[told, NoTrialLines()], stop=told
        ),
    )
    with stop_on_sigterm(stop_signal):
        results = tuner.fit()
    for result in results:
        if result.error is not None and not finished(shelf.read(result.config["name"])):
            shelf.put(result.config["name"], {"name": result.config["name"], "error": _line(result.error)})
    forget_run(config, experiment)
    if stop_signal.stop_requested():
        raise StopRequested("finished runs are kept and those under way have saved a checkpoint; run it again to go on")


class _RunProgress(tune.Callback, tune.Stopper):
    """Prints a line a run, and lets none begin after a stop was requested."""

    def __init__(self, shelf: RunStore, stop_signal: StopSignal, runs: int) -> None:
        self._shelf, self._stop_signal, self._runs = shelf, stop_signal, runs
        self._done, self._left = 0, False

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if (record := self._shelf.read(trial.config["name"])) is not None and finished(record):
            self._done += 1
            print(f"study: {self._done} of {self._runs} runs: {record['seconds']:.0f} s of training", flush=True)
        self._leave_after_the_last(trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._done += 1
        print(f"study: {self._done} of {self._runs} runs: failed", file=sys.stderr, flush=True)
        self._leave_after_the_last(trials, trial)

    def _leave_after_the_last(self, trials: list[Any], ended: Any) -> None:
        """Leaving ends what runs at once: only when no other run may be saving a checkpoint."""
        others = any(one.status == Trial.RUNNING for one in trials if one is not ended)
        self._left = self._left or (not others and self._stop_signal.stop_requested())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._left


def _trial(
    sample: dict[str, Any],
    jobs: dict[str, dict[str, Any]],
    shelf: RunStore,
    data: DataSync | None,
    stop_signal: StopSignal,
    commit: str,
) -> None:
    """What Tune runs for one run: a training on workers of its own, then the measuring of it."""
    if stop_signal.stop_requested():
        return
    config, name = Config.parse(jobs[sample["name"]]), sample["name"]
    if data is not None:
        config = data.on_this_node(config)
    try:
        outcome = train_on_ray(config, name=_checkpoints(name), data=data, stop_signal=stop_signal)
    except StopRequested:
        return
    rows = ray.get(_as_a_worker(config).remote(config.plain(), outcome.checkpoint, data))
    about = {"name": name, "epochs": len(outcome.history), "seconds": round(outcome.seconds, 1), "git_commit": commit}
    shelf.put(name, {**about, **_record(config, rows)})
    forget_run(config, _checkpoints(name))


def _as_a_worker(config: Config) -> Any:
    """`evaluate_run` with what a worker has had, instead of the little that a trial's own process has."""
    cpus, gpus = cpus_per_worker(config.cluster), gpus_per_worker(config.cluster)
    return ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="DEFAULT")(evaluate_run)


def evaluate_run(params: dict[str, Any], checkpoint: Checkpoint, data: DataSync | None) -> list[Row]:
    """A row a case and class of the test part, and of all cases of `study.other_data`."""
    config = Config.parse(params)
    if data is not None:
        config = data.on_this_node(config)
    own = Prepared(config.paths.prepared)
    model = assemble(config.override({"training.init_from": None}), own)
    with checkpoint.as_directory() as folder:
        model.load_weights(load_file(Path(folder) / WEIGHTS))
    device = device_that_fits(model, torch.device("cuda" if uses_gpu(config.cluster) else "cpu"))
    set_deterministic(device)
    model.to(device)
    parts = [(own, read_split(config.paths.split).test)]
    if config.study.other_data is not None:
        other = Prepared(config.study.other_data)
        parts.append((other, tuple(other.cases)))
    return [
        {"data": prepared.name, **_place(prepared.cases[case]), **row}
        for prepared, cases in parts
        for case in cases
        for row in evaluate_case(model, prepared, case, config.evaluation.nsd_tolerance)
    ]


def _place(case: Case) -> Row:
    """Which slices are neighbors."""
    return {"volume": case.volume, "position": case.position}


def _record(config: Config, rows: list[Row]) -> Record:
    plain = config.plain()
    return {
        "config": {section: plain[section] for section in ("model", "optimizer", "training", "engine")},
        "rows": [{key: _plain(value) for key, value in row.items()} for row in rows],
        "versions": versions(),
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _name(config: Config) -> str:
    """Names what is computed, measuring included: equal names, equal results."""
    other = config.study.other_data and Prepared(config.study.other_data).sha256
    return "run-" + config.digest(
        extra=str([run_name(config), code_digest(*MEASURING), config.evaluation.nsd_tolerance, other])
    )


def _checkpoints(name: str) -> str:
    return f"study-{name}"


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _check_other_data(config: Config) -> None:
    if config.study.other_data is None:
        return
    own, other = Prepared(config.paths.prepared), Prepared(config.study.other_data)
    for what in ("spatial_dims", "channels", "intensity", "window"):
        mine, theirs = getattr(own, what), getattr(other, what)
        said = None not in (mine, theirs) or what == "window"  # older datasets do not say their intensity
        if mine != theirs and said:
            raise InputError(f"study.other_data: found {what} {theirs}, allowed: {mine}")
    if len(own.classes) != len(other.classes) or own.name == other.name:
        raise InputError(
            f"study.other_data: found {other.name} with {len(other.classes)} classes, allowed: another dataset than "
            f"{own.name}, with {len(own.classes)} classes"
        )
