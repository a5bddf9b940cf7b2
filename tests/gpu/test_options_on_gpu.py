"""Each way to hold and train the LLM layer gives on a CUDA device what it gives on the CPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llm4seg.cluster.launch import train_on_ray
from llm4seg.cluster.session import ray_session
from llm4seg.config import Config
from llm4seg.llm.store import LayerStore
from llm4seg.models.bottleneck.layers import LLMLayers
from llm4seg.models.bottleneck.quantized import QuantizedLinear
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import fit
from tests.gpu.test_train_on_gpu import SGD
from tests.tiny_llm import block_section, tiny_store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DTYPES = ("fp32", "bf16", "int8", "int4")
GRID = (4, 6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    """Of a LLaMA as wide as the default LLM."""
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    return tiny_store(tmp_path_factory.mktemp("llm"), **shape, head_dim=64, num_hidden_layers=3)


@pytest.fixture(scope="module")
def ray(workspace: Config) -> Iterator[None]:
    with ray_session(workspace.cluster):
        yield


def layers(store: LayerStore, device: str, **changes: Any) -> LLMLayers:
    return LLMLayers(block_section(weights="random", **changes), store, 0).to(device).train()


def passed(one: LLMLayers, device: str) -> list[Tensor]:
    """Output and input's gradient, on the CPU."""
    tokens = torch.randn(2, 24, 576, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    out = one(tokens, GRID)
    out.square().sum().backward()
    assert tokens.grad is not None
    return [out.detach().cpu(), tokens.grad.cpu()]


def assert_near(found: list[Tensor], expected: list[Tensor], bound: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < bound * other.norm()


@pytest.mark.parametrize(
    "changes", [{}, {"checkpointing": True}, {"attention": "causal"}, {"position": "axial"}], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_computes_what_it_does_on_the_cpu(store: LayerStore, dtype: str, changes: dict[str, Any]) -> None:
    cpu, cuda = (passed(layers(store, device, dtype=dtype, **changes), device) for device in ("cpu", "cuda"))
    assert_near(cuda, cpu, 0.01 if dtype == "bf16" else 1e-3)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_restored_weights_are_the_same(store: LayerStore, dtype: str) -> None:
    """Whichever device the integers were made on, and wherever they go."""
    cuda = layers(store, "cuda", dtype=dtype)
    matrices = {name: one.weight for name, one in cuda.named_modules() if isinstance(one, QuantizedLinear)}
    assert {weight.device.type for weight in matrices.values()} == {"cuda"}
    cpu = dict(cuda.to("cpu").named_modules())
    assert all(torch.equal(cpu[name].weight, weight.cpu()) for name, weight in matrices.items())


def test_bytes_on_the_device(store: LayerStore) -> None:
    held = {}
    for dtype in DTYPES:
        before = torch.cuda.memory_allocated()
        one = layers(store, "cuda", dtype=dtype)
        held[dtype] = torch.cuda.memory_allocated() - before
        del one
    for dtype, part in {"bf16": 16 / 32, "int8": 8.5 / 32, "int4": 5 / 32}.items():
        assert held[dtype] == pytest.approx(part * held["fp32"], rel=0.05)


@pytest.mark.parametrize("dtype", DTYPES)
def test_under_autocast(store: LayerStore, dtype: str) -> None:
    one = layers(store, "cuda", dtype=dtype)
    exact = passed(one, "cuda")
    with torch.autocast("cuda", torch.bfloat16):
        mixed = passed(one, "cuda")
    assert_near(mixed, exact, 0.05)


@pytest.mark.parametrize(
    "engine", [{"engine.name": "torch"}, {"engine.name": "deepspeed"}, {"engine.zero": 3}], ids=str
)
@pytest.mark.parametrize(
    "option",
    [
        {"model.llm.dtype": "int8"},
        {"model.llm.dtype": "int4", "model.llm.checkpointing": True},
        {"model.llm.dtype": "bf16", "model.llm.training": "lora"},
    ],
    ids=str,
)
def test_training(
    group: None, ray: None, config: Config, option: dict[str, Any], engine: dict[str, Any], tmp_path: Path
) -> None:
    changed = config.override(SGD | option)
    expected = fit(changed.override({"engine.name": "torch"}), LocalRun(tmp_path))
    history = train_on_ray(changed.override(engine | {"cluster.device": "cuda"})).history
    for row, reference in zip(history, expected, strict=True):
        assert row["train_loss"] == pytest.approx(reference["train_loss"], rel=1e-2)
        assert row["val_loss"] == pytest.approx(reference["val_loss"], rel=1e-2)
