"""`fit` on Ray Train: `train_on_ray` starts the workers, each of which runs `worker`."""

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
from ray.train.torch import TorchConfig, get_device
from ray.util.queue import Queue

from llm4seg.cluster.data_sync import DataSync, data_sync
from llm4seg.cluster.failures import FailFast, is_the_controllers, to_user_error
from llm4seg.cluster.out_of_memory import explained_out_of_memory
from llm4seg.cluster.ray_internals import (
    CHECKPOINT_MANAGER_SNAPSHOT_FILENAME,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
    LeanTrainer,
)
from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.runs import Outcome, final_weights, run_name, storage
from llm4seg.cluster.session import cpus_per_worker, uses_gpu
from llm4seg.cluster.stop_signal import SAVED, StopSignal
from llm4seg.cluster.storage import RunFolder, retrying
from llm4seg.cluster.worker import RayRun
from llm4seg.config import Config
from llm4seg.config.schema import Cluster
from llm4seg.training.costs import profile_model
from llm4seg.training.trainer import fit
from llm4seg.utils.allocator import keep_freed_memory
from llm4seg.utils.errors import Diverged, InputError, StopRequested
from llm4seg.utils.logs import configure_child


def worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """The training loop of every Ray Train worker. A UserError that it raises ends the training: see `FailFast`."""
    configure_child()
    try:
        with explained_out_of_memory():
            return _train(loop_config)
    except StopRequested:
        return {"stopped": True}
    except Diverged as error:  # all workers see the same loss, and after a return Ray waits for the last upload
        return {"error": str(error)}


def _train(loop_config: dict[str, Any]) -> dict[str, Any]:
    if get_device().type == "cpu":
        keep_freed_memory()
    start, config, data = time.monotonic(), Config.parse(loop_config["params"]), loop_config["data"]
    if data is not None:
        config = data.on_this_node(config)
        barrier()  # another node may take longer than a step's timeout
    weights = final_weights(config, loop_config["initial"]) if loop_config["initial"] else None
    measured = profile_model(config, get_device()) if loop_config["measure"] else {}
    with RayRun(config.cluster, loop_config["stop_signal"], measured, loop_config["steps"]) as run:
        history, engine = fit(config, run, weights), config.engine.resolve(run.world_size).name
        seconds = time.monotonic() - start
        return {"history": history, "seconds": seconds, "engine": engine, "measured": measured}


def train_on_ray(
    config: Config,
    callbacks: Sequence[UserCallback] = (),
    name: str | None = None,
    data: DataSync | None = None,
    stop_signal: StopSignal | None = None,
    initial: str | None = None,
    measure: bool = False,
    steps: Queue | None = None,
) -> Outcome:
    """Train on the connected Ray cluster; goes on from its last checkpoint when the same run was interrupted.

    `data`: the outputs that nodes fetch before they train, by default those in dvc.lock. `initial`: the name of a
    finished run with the initial weights. `measure`: also measure the model's parameters and latency.
    `steps`: a queue that gets a step now and then.

    Raises StopRequested when the stop signal was set, after saving a checkpoint; UserError with the cause when the
    training cannot go on, or failed more than `cluster.max_failures` times.
    """
    name, folder_at = name or run_name(config), storage(config)
    run_config = RunConfig(
        name=name,
        storage_path=folder_at,
        failure_config=FailureConfig(max_failures=config.cluster.max_failures),
        callbacks=[FailFast(), *callbacks],
    )
    loop_config = {
        "params": config.plain(),
        "stop_signal": stop_signal or RayStopSignal(),
        "data": data or data_sync(config),
        "initial": initial,
        "measure": measure,
        "steps": steps,
    }
    trainer, folder = build_trainer(config, loop_config, run_config), RunFolder.at(folder_at, name)
    return _outcome(_fit(trainer, folder, config.cluster), folder, config.cluster)


def build_trainer(config: Config, loop_config: dict[str, Any], run_config: RunConfig) -> LeanTrainer:
    """The trainer of the `cluster` section; its workers run `worker(loop_config)`."""
    os.environ.setdefault(HEALTH_CHECK_INTERVAL_S_ENV_VAR, "0.5")  # the controller takes one report per check
    if config.cluster.timeout:
        # for a suspended process, whose own `HangTimeout` does not run
        os.environ[WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR] = str(config.cluster.timeout)
    return LeanTrainer(
        worker,
        train_loop_config=loop_config,
        torch_config=_torch_config(config.cluster),
        scaling_config=_scaling_config(config.cluster),
        run_config=run_config,
        own_ray=config.cluster.address is None,
    )


def _fit(trainer: LeanTrainer, folder: RunFolder, section: Cluster) -> Any:
    """Fit with restarts: Ray's controller restarts workers, and this function restarts the controller."""
    # Ray's own list of checkpoints may be half-written or out of date after a kill
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
    return Outcome(**returned, folder=folder, checkpoint=newest, timeout=section.storage_patience)


def _torch_config(section: Cluster) -> TorchConfig:
    """The process group of the workers: its backend, and its timeout in seconds."""
    backend = "nccl" if uses_gpu(section) else "gloo"
    return TorchConfig(backend=backend, **({"timeout_s": section.timeout} if section.timeout else {}))


def _scaling_config(section: Cluster) -> ScalingConfig:
    """The workers: their number, the resources of each, and their placement on nodes."""
    on_gpu = uses_gpu(section)
    return ScalingConfig(
        num_workers=section.workers if section.fewest < section.most else section.most,
        elastic_resize_monitor_interval_s=section.resize_interval,
        use_gpu=on_gpu,
        resources_per_worker={"CPU": cpus_per_worker(section)} | ({"GPU": section.gpus_per_worker} if on_gpu else {}),
        placement_strategy=section.placement,
    )
