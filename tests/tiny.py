"""A tiny workspace made by the real stages: phantom images, a two-layer LLaMA of hidden size 48, a small CMUNeXt."""

from functools import cache
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.config.schema import SECTIONS_ALONE, Data

PARAMS = Path(__file__).parent.parent / "params.yaml"
CHANGES = {
    "data.dataset": "phantom",
    "data.size": [32, 32],
    "data.phantom.cases": 20,
    "data.phantom.patients": 10,
    "data.phantom.size": [40, 36],
    "model.cmunext.dims": [4, 8, 8],
    "model.cmunext.depths": [1, 1, 1],
    "model.cmunext.kernels": [3, 3, 7],
    "llm.layers": [0],
    "model.llm.layer": 1,
    "training.epochs": 3,
    "training.batch_size": 4,
    "cluster.cpus_per_worker": 1,
    "evaluation.bootstrap": 200,
}


def write_llama(folder: Path, layers: int = 2) -> Path:
    """Write a tiny random LLaMA by `save_pretrained`."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=48,
        intermediate_size=112,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=64,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder


def tiny_config(root: Path) -> Config:
    """The project's params with tiny values, its paths under `root`."""
    source = {"llm.source": str(root / "llama"), "llm.sha256": None}
    return Config.load(PARAMS).override(CHANGES | source | _paths(root))


def _paths(root: Path) -> dict[str, str]:
    config = Config.load(PARAMS)
    project = PARAMS.absolute().parent
    return {f"paths.{name}": str(root / path.relative_to(project)) for name, path in config.paths}


def data_section(root: Path, spatial_dims: int = 2, dataset: str = "folder", **changes: Any) -> Data:
    """The section `data` of a dataset in files at `root`, with some parameters changed ("classes", "folder.group")."""
    values = {"dataset": dataset, "root": str(root), "spatial_dims": spatial_dims, "size": [16] * spatial_dims}
    dotted = {f"data.{name}": value for name, value in {**values, **changes}.items()}
    return _params().override(dotted, SECTIONS_ALONE).data


@cache
def _params() -> Config:
    return Config.load(PARAMS)


def prepare_workspace(root: Path) -> Config:
    """Everything that `train` reads, made by the stages before it."""
    from pipelines.fetch_llm import fetch_llm
    from pipelines.prepare import prepare
    from pipelines.search import search
    from pipelines.split import split

    config = tiny_config(root)
    write_llama(root / "llama")
    # both layers, as for a search: some tests train on the other one
    fetch_llm(config.override({"search.trials": 1, "search.space": {"model.llm.layer": [0, 1]}}))
    for stage in (prepare, split, search):
        stage(config)
    return config
