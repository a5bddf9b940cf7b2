"""Training on a CUDA device gives what the CPU gives, with either engine and with the LLM layer offloaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.cluster.launch import train_on_ray
from llm4seg.cluster.session import ray_session
from llm4seg.config import Config
from llm4seg.training.run import LocalRun, Row
from llm4seg.training.trainer import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SGD = {"optimizer.name": "sgd", "optimizer.lr": 0.05, "training.epochs": 2}


@pytest.fixture(scope="module")
def on_cpu(group: None, workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return fit(workspace.override(SGD), LocalRun(tmp_path_factory.mktemp("cpu")))


@pytest.fixture(scope="module")
def ray(workspace: Config) -> Iterator[None]:
    with ray_session(workspace.cluster):
        yield


@pytest.mark.parametrize(
    "engine",
    [
        {"engine.name": "torch"},
        {"engine.name": "deepspeed"},
        {"engine.zero": 3},
        {"engine.zero": 3, "engine.offload": "cpu"},
    ],
    ids=str,
)
def test_cuda_agrees_with_the_cpu(
    ray: None, config: Config, on_cpu: list[Row], engine: dict[str, Any], tmp_path: Path
) -> None:
    history = train_on_ray(config.override(SGD | engine | {"cluster.device": "cuda"})).history
    for row, reference in zip(history, on_cpu, strict=True):
        assert row["train_loss"] == pytest.approx(reference["train_loss"], rel=1e-2)
        assert row["val_loss"] == pytest.approx(reference["val_loss"], rel=1e-2)
