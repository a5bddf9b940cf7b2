"""Driver of a study on Ray Tune: as many concurrent runs as fit on the cluster."""

from collections.abc import Sequence

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner

from llm4seg.cluster.data_sync import data_sync
from llm4seg.cluster.failures import failed_too_often, root_cause
from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.runs import forget_run, storage
from llm4seg.cluster.session import runs_at_once
from llm4seg.cluster.stop_signal import stop_on_sigterm
from llm4seg.cluster.trials import trial_resources
from llm4seg.cluster.tune_output import NoTrialLines
from llm4seg.config import Config
from llm4seg.study.results import finished
from llm4seg.study.run_store import RunStore
from llm4seg.study.runner import STOPPED, NamedRun, current_commit, experiment_name, jobs
from llm4seg.study.trial import StudyProgress, StudyTrial
from llm4seg.utils.errors import StopRequested


def run_on_ray(config: Config, runs: Sequence[NamedRun]) -> None:
    """Run the unfinished runs on the connected cluster.

    An interrupted training goes on from its last checkpoint. On SIGTERM, the running trainings save a checkpoint;
    raises StopRequested.
    """
    pending = jobs(config, runs)
    if not pending:
        return
    stop_signal, store, experiment = RayStopSignal(), RunStore(config), experiment_name(config)
    forget_run(config, experiment)  # from a driver that was killed
    progress = StudyProgress(store, stop_signal, len(pending))
    trial = tune.with_parameters(
        StudyTrial,
        jobs={name: job.plain() for name, job in pending.items()},
        experiment=experiment,
        store=store,
        data=data_sync(config),
        stop_signal=stop_signal,
        commit=current_commit(),
    )
    tuner = Tuner(
        tune.with_resources(trial, trial_resources(config.cluster)),
        param_space={"name": tune.grid_search(list(pending))},
        tune_config=TuneConfig(max_concurrent_trials=runs_at_once(config.cluster), reuse_actors=True),
        run_config=RunConfig(
            name=experiment,
            storage_path=storage(config),
            verbose=0,
            failure_config=FailureConfig(max_failures=config.cluster.max_failures),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # runs write their own checkpoints
            callbacks=[progress, NoTrialLines()],
            stop=progress,
        ),
    )
    with stop_on_sigterm(stop_signal):
        results = tuner.fit()
    for result in results:
        name = result.config["name"]
        if result.error is not None and not finished(store.read(name)):
            line = failed_too_often(root_cause([result.error]), config.cluster.max_failures)
            store.put(name, {"name": name, "error": line})
    forget_run(config, experiment)
    if stop_signal.stop_requested():
        raise StopRequested(STOPPED)
