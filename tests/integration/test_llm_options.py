"""However the LLM layers are held and trained: engines agree, save nothing frozen, and go on from a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.training.engines.offload import sizes
from llm4seg.training.run import LocalRun, Row
from llm4seg.training.trainer import Trainer, assemble, fit
from tests.integration.test_engines import ENGINES, NVME, SGD, Stopped, assert_near, assert_resumes, assert_same, train
from tests.nvme import needs_nvme
from tests.tiny_llm import tiny_store

pytestmark = pytest.mark.usefixtures("group")
OPTIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"model.llm.dtype": "bf16"},
    "int8": {"model.llm.dtype": "int8"},
    "int4": {"model.llm.dtype": "int4"},
    "LoRA": {"model.llm.training": "lora"},
    "LoRA in bf16": {"model.llm.training": "lora", "model.llm.dtype": "bf16"},
    "checkpointing": {"model.llm.checkpointing": True},
    "checkpointing in int4": {"model.llm.checkpointing": True, "model.llm.dtype": "int4"},
    "checkpointing with LoRA": {"model.llm.checkpointing": True, "model.llm.training": "lora"},
    "shuffled": {"model.llm.weights": "shuffled"},
}


@pytest.fixture(scope="module")
def wide(workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The workspace with an LLM whose every matrix is large enough for ZeRO 3 to shard, and to move to NVMe."""
    folder = tmp_path_factory.mktemp("wide")
    shape = {"hidden_size": 768, "intermediate_size": 768, "num_attention_heads": 12, "num_key_value_heads": 12}
    store = tiny_store(folder, (0, 1), **shape, head_dim=64, num_hidden_layers=2)
    return workspace.override({"paths.llm_used": str(store.folder), "model.llm.weights": "random"})


@pytest.mark.parametrize(
    ("option", "engine"),
    [
        ("LoRA in bf16", "zero 3"),
        ("checkpointing in int4", "zero 3"),
        ("shuffled", "zero 3"),
        ("LoRA", "zero 1"),
        ("int8", "zero 2"),
    ],
)
def test_engines_agree(config: Config, tmp_path: Path, option: str, engine: str) -> None:
    """On what `test_zero_3_shards_large_matrices` leaves out."""
    config = config.override(SGD | OPTIONS[option])
    expected, _ = train(config.override(ENGINES["torch"]), tmp_path / "torch")
    history, _ = train(config.override(ENGINES[engine]), tmp_path / engine)
    assert_near(history, expected, config)


def train_saving_nothing_frozen(config: Config, folder: Path) -> list[Row]:
    """Train with SGD; of the 4.1 million entries of a frozen layer nothing is saved, nor has the optimizer any."""
    trainer = Trainer(config, LocalRun(folder))
    trained, frozen = assemble(config, trainer.data).parameter_counts().values()
    history = trainer.train()
    optimizer: Any = trainer.engine._optimizer
    states = getattr(optimizer, "optimizer", optimizer).state.values()
    momenta = sum(slot.numel() for state in states for slot in state.values() if isinstance(slot, torch.Tensor))
    assert trained <= momenta < 1.1 * trained  # DeepSpeed pads
    saved = [tensor for file in folder.rglob("*.safetensors") for tensor in load_file(file).values()]
    assert 2 * trained < sum(tensor.numel() for tensor in saved) < 4 * trained < frozen
    return history


@pytest.mark.parametrize("option", ["fp32", "bf16", "int8", "int4", "LoRA", "checkpointing", "checkpointing with LoRA"])
def test_zero_3_shards_large_matrices(wide: Config, tmp_path: Path, option: str) -> None:
    found = sizes(assemble(wide, Prepared(wide.paths.prepared)))
    assert len(found.moving) == len(found.matrices) == 7
    config = wide.override(SGD | OPTIONS[option] | {"training.epochs": 1})
    by_torch, *sharded = [
        train_saving_nothing_frozen(config.override(ENGINES[name]), tmp_path / name)
        for name in ("torch", "zero 3", "zero 3, CPU offload")
    ]
    for history in sharded:
        assert_near(history, by_torch, config)


TWO = {"model.llm.layer": [0, 1]}
ON_NVME: dict[str, dict[str, Any]] = {name: OPTIONS[name] for name in ("fp32", "bf16", "LoRA", "checkpointing")}
ON_NVME |= {"two layers": TWO, "two layers, checkpointing with LoRA": TWO | OPTIONS["checkpointing with LoRA"]}


@pytest.mark.parametrize("option", ON_NVME)
def test_matrices_on_nvme_compute_the_same(wide: Config, tmp_path: Path, option: str) -> None:
    """Training and evaluation in turn, which use them in different orders."""
    needs_nvme()
    config = wide.override(SGD | ON_NVME[option] | {"cluster.nvme": str(tmp_path / "nvme")})
    by_torch, swapped = (
        fit(config.override(engine), LocalRun(tmp_path / "run" / engine.get("engine.offload", "none")))
        for engine in (ENGINES["torch"], NVME)
    )
    assert_same(swapped, by_torch)
    matrices = sorted((tmp_path / "nvme").rglob("*.swp"))
    assert len(matrices) == (14 if "two" in option else 7)
    assert all(file.stat().st_size >= 768**2 * (2 if option == "bf16" else 4) for file in matrices)


@pytest.mark.parametrize(("option", "engine"), [("LoRA", "torch"), ("LoRA", "zero 3"), ("int8", "zero 3")])
def test_resumed_equals_uninterrupted(config: Config, tmp_path: Path, option: str, engine: str) -> None:
    config = config.override(OPTIONS[option] | ENGINES[engine])
    assert_resumes(config, Stopped(tmp_path / "parts"), train(config, tmp_path / "whole"))
