"""`fit` on Ray Train: a worker is one line, a launch is `train_on_ray`."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from llm4seg.cluster.session import cpus_per_worker, uses_gpu
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.files import remove
from llm4seg.run import Row
from llm4seg.train import fit
from llm4seg.trained import WEIGHTS, describe_llm


class RayRun:
    """The run of one Ray Train worker."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self.device: torch.device = get_device()

    @contextmanager
    def saved(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def report(self, row: Row, save: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder))
            ray.train.report(row, checkpoint=Checkpoint.from_directory(folder))


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


def worker(params: dict[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs."""
    began = time.monotonic()
    history = fit(Config.parse(params), RayRun())
    return {"history": history, "seconds": time.monotonic() - began}


def run_name(config: Config) -> str:
    """A name that only equal computations share: a run interrupted under it can be gone on with, no other can."""
    llm = describe_llm(config)
    sources = [
        Prepared(config.paths.prepared).sha256,
        config.paths.split.read_text(),
        llm and (llm["layers"], llm["norm_sha256"]),
        config.cluster.workers,  # ZeRO's checkpoints are cut to the number of workers
    ]
    return "train-" + config.digest("model", "optimizer", "training", "engine", extra=str(sources))


def storage(config: Config) -> str:
    """Where checkpoints go: a local folder or a bucket."""
    return config.cluster.storage or str(config.paths.runs)


def train_on_ray(config: Config, callbacks: Sequence[UserCallback] = (), name: str | None = None) -> Outcome:
    """Train on the connected Ray cluster; goes on from its last checkpoint when the same run was interrupted.

    Raises RuntimeError with the worker's own error when it fails more than `cluster.max_failures` times.
    """
    section, on_gpu = config.cluster, uses_gpu(config.cluster)
    trainer = TorchTrainer(
        worker,
        train_loop_config=config.plain(),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=section.workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": cpus_per_worker(section)} | ({"GPU": 1} if on_gpu else {}),
        ),
        run_config=RunConfig(
            name=name or run_name(config),
            storage_path=storage(config),
            failure_config=FailureConfig(max_failures=section.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=list(callbacks),
        ),
    )
    result = trainer.fit()
    assert result.checkpoint is not None
    return Outcome(result.return_value["history"], result.return_value["seconds"], result.checkpoint)


def forget_run(config: Config) -> None:
    """Delete a finished run's local checkpoints, so that the same config trains anew when asked again."""
    if config.cluster.storage is None:
        remove(config.paths.runs / run_name(config))
