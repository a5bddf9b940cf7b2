"""`fit` on Ray Train: a worker is one line, a launch is `train_on_ray`."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity
from ray.exceptions import RayActorError
from ray.train import (
    Checkpoint,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
    get_context,
)
from ray.train.collective import barrier
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.constants import HEALTH_CHECK_INTERVAL_S_ENV_VAR, WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR

from llm4seg.cluster.bell import Bell, rung_by_sigterm
from llm4seg.cluster.failures import is_out_of_memory, is_the_controllers, named, out_of_memory
from llm4seg.cluster.node_data import NodeData, node_data
from llm4seg.cluster.run import RayRun
from llm4seg.cluster.session import cpus_per_worker, uses_gpu
from llm4seg.cluster.storage import RunFolder, patient
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.errors import InputError, Left
from llm4seg.files import sha256_file
from llm4seg.run import Row
from llm4seg.sections import Cluster
from llm4seg.train import Diverged, fit
from llm4seg.trained import WEIGHTS, describe_llm


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves: a row an epoch, its seconds inside `fit`, and the last checkpoint."""

    history: list[Row]
    seconds: float
    checkpoint: Checkpoint

    @contextmanager
    def weights(self) -> Iterator[Path]:
        """Lend the file of the weights to leave behind."""
        with self.checkpoint.as_directory() as folder:
            yield Path(folder) / WEIGHTS


def worker(order: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs. An error that would only come again is returned, not raised, which retries."""
    try:
        return _train(order)
    except Left:
        return {"left": True}
    except Diverged as error:  # all workers see the same loss
        return {"error": str(error)}
    except (InputError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        cause = out_of_memory(error) if isinstance(error, RuntimeError) else error
        if get_context().get_world_size() > 1:  # the others would wait for this one
            raise cause from None
        return {"error": str(cause)}


def _train(order: dict[str, Any]) -> dict[str, Any]:
    began, config, data = time.monotonic(), Config.parse(order["params"]), order["data"]
    if data is not None:
        config = data.on_this_node(config)
        barrier()  # another node may take longer, for which no step's time-out allows
    with RayRun(config.cluster, order["bell"]) as run:
        return {"history": fit(config, run), "seconds": time.monotonic() - began}


def run_name(config: Config) -> str:
    """A name that only equal computations share: a run interrupted under it can be gone on with, no other can."""
    llm = describe_llm(config)
    sources = [
        Prepared(config.paths.prepared).sha256,
        config.paths.split.read_text(),
        llm and (llm["layers"], llm["norm_sha256"]),
    ]
    if config.training.init_from is not None:
        sources.append(sha256_file(config.training.init_from / WEIGHTS))
    return "train-" + config.digest("model", "optimizer", "training", "engine", extra=str(sources))


def storage(config: Config) -> str:
    """Where checkpoints go: a local folder or a bucket."""
    return config.cluster.storage or str(config.paths.runs)


def train_on_ray(
    config: Config,
    callbacks: Sequence[UserCallback] = (),
    name: str | None = None,
    data: NodeData | None = None,
    bell: Bell | None = None,
) -> Outcome:
    """Train on the connected Ray cluster; goes on from its last checkpoint when the same run was interrupted.

    SIGTERM lets the workers save a checkpoint and leave, which raises Left. Raises InputError with the cause when the
    training cannot go on, or failed more than `cluster.max_failures` times. `data` is what nodes fetch before they
    train; asked of DVC here if not given. `bell` is rung by a caller who hears SIGTERM in the place of this process.
    """
    bell, name = bell or Bell(), name or run_name(config)
    run_config = RunConfig(
        name=name,
        storage_path=storage(config),
        failure_config=FailureConfig(max_failures=config.cluster.max_failures),
        callbacks=list(callbacks),
    )
    trainer = TorchTrainer(
        worker,
        train_loop_config={"params": config.plain(), "bell": bell, "data": data or node_data(config)},
        torch_config=_group(config.cluster),
        scaling_config=_scaling(config.cluster),
        run_config=run_config,
    )
    os.environ.setdefault(HEALTH_CHECK_INTERVAL_S_ENV_VAR, "0.5")  # it takes in one report each time
    if config.cluster.timeout:
        # for a process that does not run at all, and so cannot watch itself
        os.environ[WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR] = str(config.cluster.timeout)
    with rung_by_sigterm(bell):
        return _outcome(_fit(trainer, RunFolder.at(storage(config), name), config.cluster))


def _fit(trainer: TorchTrainer, folder: RunFolder, section: Cluster) -> Any:
    """Let Ray train; its controller starts workers again, but who starts the controller again is here."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_the_controllers),
        stop=tenacity.stop_after_attempt(section.max_failures + 1),
        before=lambda _: patient(section.storage_patience)(folder.forget_index),
        reraise=True,
    )
    try:
        return retrying(trainer.fit)
    except (TrainingFailedError, RayActorError) as error:
        raise named(error, section.max_failures) from error


def _outcome(result: Any) -> Outcome:
    returned = result.return_value
    if "left" in returned:
        raise Left("a checkpoint is saved; run it again to go on from there")
    if "error" in returned:
        raise InputError(returned["error"])
    assert result.checkpoint is not None
    return Outcome(returned["history"], returned["seconds"], result.checkpoint)


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
        resources_per_worker={"CPU": cpus_per_worker(section)} | ({"GPU": 1} if on_gpu else {}),
        placement_strategy=section.placement,
    )


def forget_run(config: Config, name: str | None = None) -> None:
    """Delete a finished run's checkpoints, so that the same config trains anew when asked again."""
    folder = RunFolder.at(storage(config), name or run_name(config))
    patient(config.cluster.storage_patience)(folder.forget)
