"""`fit` on Ray Train: `worker` is what every worker runs, `train_on_ray` starts them."""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import tenacity
from ray.exceptions import RayActorError
from ray.train import (
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train.collective import barrier
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from llm4seg.cluster.data_sync import DataSync, data_sync
from llm4seg.cluster.failures import FailFast, is_the_controllers, to_user_error
from llm4seg.cluster.out_of_memory import explained_out_of_memory
from llm4seg.cluster.ray_internals import (
    CHECKPOINT_MANAGER_SNAPSHOT_FILENAME,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
)
from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.runs import Outcome, final_weights, run_name, storage
from llm4seg.cluster.session import cpus_per_worker, uses_gpu
from llm4seg.cluster.stop_signal import SAVED, StopSignal
from llm4seg.cluster.storage import RunFolder, retrying
from llm4seg.cluster.worker import RayRun
from llm4seg.config import Config
from llm4seg.config.schema import Cluster
from llm4seg.training.trainer import Diverged, fit, profile_model
from llm4seg.utils.errors import InputError, StopRequested


def worker(order: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs. Of what it raises, an InputError ends the training: see `FailFast`."""
    try:
        with explained_out_of_memory():
            return _train(order)
    except StopRequested:
        return {"stopped": True}
    except Diverged as error:  # all workers see the same loss, and returning lets the last upload end
        return {"error": str(error)}


def _train(order: dict[str, Any]) -> dict[str, Any]:
    began, config, data = time.monotonic(), Config.parse(order["params"]), order["data"]
    if data is not None:
        config = data.on_this_node(config)
        barrier()  # another node may take longer, for which no step's time-out allows
    weights = final_weights(config, order["initial"]) if order["initial"] else None
    measured = profile_model(config, get_device()) if order["measure"] else {}
    with RayRun(config.cluster, order["stop_signal"], measured) as run:
        history, engine = fit(config, run, weights), config.engine.resolve(run.world_size).name
        seconds = time.monotonic() - began
        return {"history": history, "seconds": seconds, "engine": engine, "measured": measured}


def train_on_ray(
    config: Config,
    callbacks: Sequence[UserCallback] = (),
    name: str | None = None,
    data: DataSync | None = None,
    stop_signal: StopSignal | None = None,
    initial: str | None = None,
    measure: bool = False,
) -> Outcome:
    """Train on the connected Ray cluster; goes on from its last checkpoint when the same run was interrupted.

    Raises StopRequested when the stop signal was set, after saving a checkpoint; UserError with the cause when the
    training cannot go on, or failed more than `cluster.max_failures` times. `data` is what nodes fetch before they
    train; looked up in dvc.lock if not given. `initial`: the name of a finished run whose weights come first;
    `measure`: the model's parameters and latency, too.
    """
    name, folder_at = name or run_name(config), storage(config)
    run_config = RunConfig(
        name=name,
        storage_path=folder_at,
        failure_config=FailureConfig(max_failures=config.cluster.max_failures),
        callbacks=[FailFast(), *callbacks],
    )
    order = {
        "params": config.plain(),
        "stop_signal": stop_signal or RayStopSignal(),
        "data": data or data_sync(config),
        "initial": initial,
        "measure": measure,
    }
    trainer, folder = build_trainer(config, order, run_config), RunFolder.at(folder_at, name)
    return _outcome(_fit(trainer, folder, config.cluster), folder, config.cluster)


def build_trainer(config: Config, order: dict[str, Any], run_config: RunConfig) -> TorchTrainer:
    """Ray's trainer of the `cluster` section, whose workers all run `worker` on the order."""
    os.environ.setdefault(HEALTH_CHECK_INTERVAL_S_ENV_VAR, "0.5")  # it takes in one report each time
    if config.cluster.timeout:
        # for a process that does not run at all, and so cannot watch itself
        os.environ[WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR] = str(config.cluster.timeout)
    return TorchTrainer(
        worker,
        train_loop_config=order,
        torch_config=_group(config.cluster),
        scaling_config=_scaling(config.cluster),
        run_config=run_config,
    )


def _fit(trainer: TorchTrainer, folder: RunFolder, section: Cluster) -> Any:
    """Let Ray train; its controller starts workers again, but who starts the controller again is here."""
    # a kill may have left Ray's own list of checkpoints half-written or out of date
    forget_index = partial(folder.delete_if_there, CHECKPOINT_MANAGER_SNAPSHOT_FILENAME)
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_the_controllers),
        stop=tenacity.stop_after_attempt(section.max_failures + 1),
        before=lambda _: retrying(section.storage_patience)(forget_index),
        reraise=True,
    )
    try:
        return attempts(trainer.fit)
    except (TrainingFailedError, RayActorError) as error:
        raise to_user_error(error, section.max_failures) from error


def _outcome(result: Any, folder: RunFolder, section: Cluster) -> Outcome:
    returned = result.return_value
    if "stopped" in returned:
        raise StopRequested(SAVED)
    if "error" in returned:
        raise InputError(returned["error"])
    assert result.checkpoint is not None
    newest = PurePosixPath(result.checkpoint.path).name
    return Outcome(**returned, folder=folder, checkpoint=newest, patience=section.storage_patience)


def _group(section: Cluster) -> TorchConfig:
    """How workers find each other, and how long one waits for another."""
    backend = "nccl" if uses_gpu(section) else "gloo"
    return TorchConfig(backend=backend, **({"timeout_s": section.timeout} if section.timeout else {}))


def _scaling(section: Cluster) -> ScalingConfig:
    on_gpu = uses_gpu(section)
    return ScalingConfig(
        num_workers=section.workers if section.fewest < section.most else section.most,
        elastic_resize_monitor_interval_s=section.resize_interval,
        use_gpu=on_gpu,
        resources_per_worker={"CPU": cpus_per_worker(section)} | ({"GPU": section.gpus_per_worker} if on_gpu else {}),
        placement_strategy=section.placement,
    )
