"""With offload, ZeRO 3 trains beside an LLM layer that the device could not hold, and computes the same."""

from pathlib import Path

import pytest
import torch

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.training.engines.offload import sizes
from llm4seg.training.run import Row
from llm4seg.training.trainer import assemble
from tests.gpu.peak import fit_on_gpu
from tests.nvme import needs_nvme
from tests.tiny_llm import tiny_store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# seven matrices of 64 MiB; cuBLAS alone takes up to 32 MiB of workspace
WIDE = {"hidden_size": 4096, "intermediate_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32}
ZERO_3 = {"engine.zero": 3, "optimizer.name": "sgd", "optimizer.lr": 0.01, "training.epochs": 1}


@pytest.fixture(scope="module")
def wide(workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    store = tiny_store(tmp_path_factory.mktemp("llm"), (1,), **WIDE, head_dim=128, num_hidden_layers=2)
    return workspace.override(ZERO_3 | {"paths.llm_used": str(store.folder), "model.llm.weights": "random"})


@pytest.fixture(scope="module")
def on_the_device(wide: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], int]:
    return fit_on_gpu(wide, tmp_path_factory.mktemp("device") / "run")


@pytest.mark.parametrize("place", ["cpu", "nvme"])
def test_the_device_never_holds_the_llm(
    wide: Config, tmp_path: Path, on_the_device: tuple[list[Row], int], place: str
) -> None:
    if place == "nvme":
        needs_nvme()
    changes = {"engine.offload": place, "cluster.nvme": str(tmp_path / "nvme")}
    history, peak = fit_on_gpu(wide.override(changes), tmp_path / "run")
    found = sizes(assemble(wide, Prepared(wide.paths.prepared)))
    assert len(found.moving) == 7
    assert peak < found.bytes < on_the_device[1]
    for row, expected in zip(history, on_the_device[0], strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
