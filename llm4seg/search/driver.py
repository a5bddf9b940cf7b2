"""Hyper-parameter search on Ray Tune: each trial is the training of `train` with some parameters overridden."""

import json
import logging
import os
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from llm4seg.cluster.data_sync import data_sync
from llm4seg.cluster.launch import train_on_ray
from llm4seg.cluster.progress import EpochPrinter
from llm4seg.cluster.ray_events import ray_events
from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.runs import forget_run, run_folder, run_name, storage
from llm4seg.cluster.stop_signal import stop_on_sigterm
from llm4seg.cluster.storage import RunFolder
from llm4seg.cluster.trials import trial_resources
from llm4seg.cluster.tune_output import NoTrialLines
from llm4seg.config import Config
from llm4seg.config.schema import DEFAULT_LLM, Search
from llm4seg.llm.store import named_store
from llm4seg.search.progress import TrialProgress
from llm4seg.search.results import SearchResult
from llm4seg.search.searcher import OptunaSearcher
from llm4seg.search.trial import Trial
from llm4seg.search.trial_tables import collect
from llm4seg.utils.provenance import code_digest

__all__ = ["SearchResult", "forget_search", "run_search"]

log = logging.getLogger(__name__)

os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # seconds of Tune's state that a killed driver loses, at most
os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a failed trial has no metric


def run_search(config: Config, name: str) -> SearchResult:
    """Train points of the search space on the connected cluster, each for at most `search.epochs` epochs; compare them.

    Resumes an interrupted search of this name; returns a finished one at once: see `search_name` and `forget_search`.
    Raises InputError when every trial failed.
    """
    searching = shared_out(_of_trials(config))
    initial = train_cnn_only(config, f"{name}-baseline") if config.search.warm_start else None
    log.info(f"search: at most {config.search.trials} trials of at most {config.search.epochs} epochs")
    results = _tuner(searching, name, initial).fit()
    return collect(results, config.search, config.cluster.max_failures)


def forget_search(config: Config, name: str) -> None:
    """Delete the runs of a search, once its result is written."""
    for run in run_folder(config, name).neighbors():
        forget_run(config, run)


def search_name(config: Config) -> str:
    """The name of a search, which only equal searches share: an interrupted search of this name can be resumed.

    Raises InputError when a layer is not in the store. Reads and hashes files, so callers compute it once.
    """
    parts: list[Any] = [run_name(_of_trials(config)), layers_sha256(config), code_digest("search")]
    if config.search.warm_start:
        section = config.training  # of the CNN-only baseline
        parts += [section.epochs, section.patience, section.validate_every]
    return "search-" + config.digest("search", extra=str(parts))


def _of_trials(config: Config) -> Config:
    # what stops a trial early is search.asha, which the sampler knows of, by the validation Dice of each epoch
    section = {"training.epochs": config.search.epochs, "training.patience": None, "training.validate_every": 1}
    return config.override({**section, "cluster.keep": 1})


def layers_sha256(config: Config) -> list[str | None]:
    """For each LLM its name, if not `default`, and the SHA-256 of its norm and of every layer that a trial may use.

    Raises InputError if a store lacks a layer.
    """
    if config.model.bottleneck != "llm" and "model.bottleneck" not in config.search.space:
        return []
    every: list[str | None] = []
    for name, layers in config.layers_used().items():
        store = named_store(config.paths.llm_used, name)
        every += [] if name == DEFAULT_LLM else [name]
        every += [store.norm_sha256, *(store.sha256(layer) for layer in layers)]
    return every


def shared_out(config: Config) -> Config:
    """A copy of `config` in which all concurrent trials fit on the cluster's CPU cores."""
    if config.cluster.cpus_per_worker is not None:
        return config
    cores = int(ray.cluster_resources().get("CPU", 1))
    share = max(1, cores // (config.cluster.most * config.cluster.trials))
    return config.override({"cluster.cpus_per_worker": share})


def train_cnn_only(config: Config, name: str) -> str:
    """Train the CNN without the LLM; returns the name of the run. Resumes an interrupted run of this name."""
    cnn_only, stop_signal = config.override({"model.bottleneck": "identity"}), RayStopSignal()
    log.info("search: the CNN alone, from which every trial starts")
    with stop_on_sigterm(stop_signal), ray_events(EpochPrinter(cnn_only.training.epochs)) as callback:
        train_on_ray(cnn_only, [callback], name, stop_signal=stop_signal)
    return name


def _tuner(config: Config, name: str, initial: str | None) -> Tuner:
    """Tune's Tuner: new, or restored after an interruption."""
    trial = tune.with_parameters(Trial, params=config.plain(), name=name, data=data_sync(config), initial=initial)
    trainable = tune.with_resources(trial, trial_resources(config.cluster))
    folder = run_folder(config, name)
    if _has_trials(folder):
        return Tuner.restore(_join(storage(config), name), trainable, resume_unfinished=True)
    folder.forget()
    scheduler, searcher = build_scheduler(config.search), OptunaSearcher(config.search)
    return Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=config.search.trials,
            max_concurrent_trials=config.cluster.trials,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage(config),
            verbose=0,
            callbacks=[TrialProgress(config.search), KeepState(scheduler, searcher), NoTrialLines()],
            failure_config=FailureConfig(max_failures=config.cluster.max_failures),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # runs write their own checkpoints
        ),
    )


def build_scheduler(section: Search) -> TrialScheduler:
    if section.asha is None or section.asha.grace >= section.epochs:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epoch",
        metric="best_dice",
        mode="max",
        max_t=section.epochs,
        grace_period=section.asha.grace,
        reduction_factor=section.asha.reduction,
        stop_last_trials=False,
    )


class KeepState(Callback):
    """Saves ASHA's state with the search, which Tune does not; after a restore, reconciles the searcher with Tune."""

    def __init__(self, scheduler: TrialScheduler, searcher: OptunaSearcher) -> None:
        self._scheduler, self._searcher, self._reconciled = scheduler, searcher, False

    def get_state(self) -> dict[str, Any]:
        return dict(self._scheduler.__dict__)

    def set_state(self, state: dict[str, Any]) -> None:
        self._scheduler.__dict__.update(state)

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if not self._reconciled:
            self._searcher.reconcile({trial.trial_id: trial.config["overrides"] for trial in trials})
            self._reconciled = True


def _has_trials(folder: RunFolder) -> bool:
    """Whether Tune has saved a trial, without which it cannot restore a search."""
    for name in sorted((name for name in folder.files() if name.startswith("experiment_state")), reverse=True):
        try:
            return bool(json.loads(folder.read(name))["trial_data"])
        except ValueError:
            # cut short by a kill; the file before it is used, with the checkpoints of the trials' runs
            folder.delete_file(name)
    return False


def _join(address: str, name: str) -> str:
    """The address of a folder in the storage, whose address may end in a query."""
    base, mark, query = address.partition("?")
    return f"{base.rstrip('/')}/{name}{mark}{query}"
