"""`fit` on Ray Train: a worker is one line, a launch is `train_on_ray`."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity
from ray.exceptions import RayActorError
from ray.train import (
    Checkpoint as RayCheckpoint,
)
from ray.train import (
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train.collective import barrier
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from torch import Tensor

from llm4seg.cluster.data_sync import DataSync, data_sync
from llm4seg.cluster.failures import FailFast, is_out_of_memory, is_the_controllers, out_of_memory, to_user_error
from llm4seg.cluster.ray_internals import HEALTH_CHECK_INTERVAL_S_ENV_VAR, WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR
from llm4seg.cluster.session import cpus_per_worker, uses_gpu
from llm4seg.cluster.stop_signal import StopSignal, stop_on_sigterm
from llm4seg.cluster.storage import RunFolder, retrying
from llm4seg.cluster.worker import RayRun
from llm4seg.config import Config
from llm4seg.config.schema import Cluster
from llm4seg.data.prepared import Prepared
from llm4seg.models.saved import WEIGHTS, describe_llm
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.run import Row
from llm4seg.training.trainer import Diverged, fit, profile_model
from llm4seg.utils.errors import InputError, StopRequested
from llm4seg.utils.files import sha256_file
from llm4seg.utils.provenance import TRAINING, code_digest


@dataclass(frozen=True)
class Outcome:
    """What a finished training leaves: a row an epoch, its seconds inside `fit`, what ran it, the last checkpoint."""

    history: list[Row]
    seconds: float
    engine: str
    checkpoint: RayCheckpoint

    @contextmanager
    def weights(self) -> Iterator[Path]:
        """Lend the file of the weights to leave behind."""
        with self.checkpoint.as_directory() as folder:
            yield Path(folder) / WEIGHTS


def worker(order: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs. Of what it raises, an InputError ends the training: see `FailFast`."""
    try:
        return _train(order)
    except StopRequested:
        return {"left": True}
    except Diverged as error:  # all workers see the same loss, and returning lets the last upload end
        return {"error": str(error)}
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(error) from None
        raise


def _train(order: dict[str, Any]) -> dict[str, Any]:
    began, config, data = time.monotonic(), Config.parse(order["params"]), order["data"]
    if data is not None:
        config = data.on_this_node(config)
        barrier()  # another node may take longer, for which no step's time-out allows
    initial = _weights_of(config, order["initial"]) if order.get("initial") else None
    facts = profile_model(config, get_device()) if order.get("measure") else {}
    tags = {"number": order["number"]} if "number" in order else {}
    with RayRun(config.cluster, order["stop_signal"], order.get("run"), facts | tags) as run:
        history, engine = fit(config, run, initial), config.engine.resolve(run.world_size).name
        return {"history": history, "seconds": time.monotonic() - began, "engine": engine, "facts": facts}


def _weights_of(config: Config, name: str) -> dict[str, Tensor]:
    """The weights that a finished run left behind."""
    folder = RunFolder.at(storage(config), name)
    with folder.open(folder.checkpoints()[0], config.cluster.storage_patience) as checkpoint:
        return Checkpoint.read(checkpoint).weights


def run_name(config: Config) -> str:
    """A name that only equal computations share: a run interrupted under it can be gone on with, no other can."""
    llm = describe_llm(config)
    sources = [
        code_digest(*TRAINING),
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
    data: DataSync | None = None,
    stop_signal: StopSignal | None = None,
) -> Outcome:
    """Train on the connected Ray cluster; goes on from its last checkpoint when the same run was interrupted.

    SIGTERM lets the workers save a checkpoint and leave, which raises Left. Raises InputError with the cause when the
    training cannot go on, or failed more than `cluster.max_failures` times. `data` is what nodes fetch before they
    train; asked of DVC here if not given. `stop_signal` is for a caller that
    handles SIGTERM in the place of this process.
    """
    stop_signal, name = stop_signal or StopSignal(), name or run_name(config)
    run_config = RunConfig(
        name=name,
        storage_path=storage(config),
        failure_config=FailureConfig(max_failures=config.cluster.max_failures),
        callbacks=[FailFast(), *callbacks],
    )
    order = {"params": config.plain(), "stop_signal": stop_signal, "data": data or data_sync(config)}
    trainer = build_trainer(config, worker, order, run_config)
    with stop_on_sigterm(stop_signal):
        return _outcome(_fit(trainer, RunFolder.at(storage(config), name), config.cluster))


def build_trainer(
    config: Config, work: Callable[[dict[str, Any]], Any], order: dict[str, Any], run_config: RunConfig
) -> TorchTrainer:
    """Ray's trainer of the `cluster` section, of which every worker runs `work` on the order."""
    os.environ.setdefault(HEALTH_CHECK_INTERVAL_S_ENV_VAR, "0.5")  # it takes in one report each time
    if config.cluster.timeout:
        # for a process that does not run at all, and so cannot watch itself
        os.environ[WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR] = str(config.cluster.timeout)
    return TorchTrainer(
        work,
        train_loop_config=order,
        torch_config=_group(config.cluster),
        scaling_config=_scaling(config.cluster),
        run_config=run_config,
    )


def _fit(trainer: TorchTrainer, folder: RunFolder, section: Cluster) -> Any:
    """Let Ray train; its controller starts workers again, but who starts the controller again is here."""
    restarting = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_the_controllers),
        stop=tenacity.stop_after_attempt(section.max_failures + 1),
        before=lambda _: retrying(section.storage_patience)(folder.forget_index),
        reraise=True,
    )
    try:
        return restarting(trainer.fit)
    except (TrainingFailedError, RayActorError) as error:
        raise to_user_error(error, section.max_failures) from error


def _outcome(result: Any) -> Outcome:
    returned = result.return_value
    if "left" in returned:
        raise StopRequested("a checkpoint is saved; run it again to go on from there")
    if "error" in returned:
        raise InputError(returned["error"])
    assert result.checkpoint is not None
    return Outcome(returned["history"], returned["seconds"], returned["engine"], result.checkpoint)


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


def forget_run(config: Config, name: str | None = None) -> None:
    """Delete a finished run's checkpoints, so that the same config trains anew when asked again."""
    folder = RunFolder.at(storage(config), name or run_name(config))
    retrying(config.cluster.storage_patience)(folder.forget)
