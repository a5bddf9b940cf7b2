"""Positions and masks are made once; without a mask, attention both ways is what a mask of zeros makes of it."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm4seg.llm.store import LayerStore
from llm4seg.models.bottleneck import LLMLayers
from llm4seg.models.bottleneck import layers as layers_module
from llm4seg.models.bottleneck.block import POOLING, mean_of_cubes
from llm4seg.models.bottleneck.precast import precast_frozen
from tests.benchmarks.launches import Trace
from tests.tiny_llm import block_section, tiny_store

TOKENS = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(0))
GRID = (2, 3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return tiny_store(tmp_path_factory.mktemp("llm"))


def made(store: LayerStore, **changes: Any) -> LLMLayers:
    return LLMLayers(block_section(**changes), store, 0)


def result(layers: LLMLayers) -> tuple[Tensor, Tensor]:
    tokens = TOKENS.clone().requires_grad_()
    out = layers(tokens, GRID)
    out.square().sum().backward()
    assert tokens.grad is not None
    return out.detach(), tokens.grad


def launched(layers: LLMLayers) -> set[str]:
    with Trace() as trace:
        result(layers)
    return {name for _, name in trace.launches()}


@pytest.mark.parametrize("changes", [{}, {"attention": "causal"}, {"position": "axial"}, {"position": "released"}])
def test_inputs_are_made_in_the_first_pass_alone(store: LayerStore, changes: dict[str, Any]) -> None:
    layers = made(store, **changes)
    first = result(layers)
    assert not {"arange", "cos", "sin", "new_zeros", "new_full", "triu"} & launched(layers)
    assert all(torch.equal(one, other) for one, other in zip(first, result(layers), strict=True))
    layers.double()
    assert layers(TOKENS.double(), GRID).dtype == torch.float64
    assert layers(TOKENS.double(), (3, 2)).shape == TOKENS.shape


def test_what_inference_made_serves_a_later_training(store: LayerStore) -> None:
    expected, layers = result(made(store)), made(store)
    with torch.inference_mode():
        layers(TOKENS, GRID)
    assert all(torch.equal(one, other) for one, other in zip(expected, result(layers), strict=True))


def test_inference_keeps_the_inputs_of_one_grid_and_training_all(store: LayerStore) -> None:
    layers = made(store)
    cache = layers._cache
    result(layers)
    with torch.no_grad():
        for grid in ((6, 1), (1, 6), (3, 2)):
            layers(TOKENS, grid)
    assert list(cache._training) == [(GRID, torch.float32, torch.device("cpu"))]
    assert cache._latest is not None
    assert cache._latest[0] == ((3, 2), torch.float32, torch.device("cpu"))


def test_no_saved_model_has_them(store: LayerStore) -> None:
    layers, names = made(store), list(made(store).state_dict())
    result(layers)
    assert list(layers.state_dict()) == names
    assert copy.deepcopy(layers)._cache._training == {}
    assert pickle.loads(pickle.dumps(layers._cache))._training == {}


def test_an_export_makes_its_own(store: LayerStore) -> None:
    layers = made(store).eval()
    with torch.no_grad():
        expected = layers(TOKENS, GRID)
        exported = torch.export.export(OnGrid(layers), (TOKENS,)).module()
        assert torch.allclose(exported(TOKENS), expected, atol=1e-6)
        assert torch.equal(layers(TOKENS, GRID), expected)


class OnGrid(nn.Module):
    def __init__(self, layers: LLMLayers) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, tokens_NTE: Tensor) -> Tensor:
        out: Tensor = self.layers(tokens_NTE, GRID)
        return out


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_no_mask_is_a_mask_of_zeros(store: LayerStore, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which gets none; transformers' attention would be causal."""
    masked, unmasked = made(store), made(store)
    for layers in (masked, unmasked):
        attention: Any = layers.layers[0].self_attn
        attention.config._attn_implementation = backend
    assert not unmasked._needs_mask
    expected = result(masked)
    monkeypatch.setattr(layers_module, "attention_mask", lambda *arguments: None)
    for one, other in zip(result(unmasked), expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_only_a_cpu_gets_a_mask_of_zeros(store: LayerStore) -> None:
    layers = made(store)
    for device, masked in (("cpu", True), ("meta", False)):
        (inputs,) = layers._inputs(TOKENS.to(device), GRID).values()
        assert (inputs["attention_mask"] is not None) == masked


@pytest.mark.parametrize("changes", [{}, {"training": "lora"}, {"norm": True}])
def test_frozen_matrices_cast_once_compute_what_autocast_does(store: LayerStore, changes: dict[str, Any]) -> None:
    found, casts = [], []
    for precast in (False, True):
        torch.manual_seed(0)
        layers = made(store, **changes)
        if precast:
            precast_frozen(nn.Sequential(layers), torch.bfloat16)
        with Trace() as trace, torch.autocast("cpu", torch.bfloat16):
            out = layers(TOKENS, GRID)
        found.append(out.detach())
        casts.append(trace.launches()["other", "_to_copy"])
    assert torch.equal(*found)
    assert casts[0] - casts[1] == 7  # q, k, v, o, gate, up and down


def test_a_trained_layer_is_not_cast(store: LayerStore) -> None:
    layers = made(store, training="full")
    precast_frozen(nn.Sequential(layers), torch.bfloat16)
    assert {parameter.dtype for parameter in layers.parameters()} == {torch.float32}


def test_means_of_cubes_are_torchs_average_pooling() -> None:
    values = torch.randn(2, 3, 4, 6, 8, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(mean_of_cubes(values, 2), POOLING[3](values, 2), rtol=1e-12)
    assert torch.autograd.gradcheck(lambda x: mean_of_cubes(x, 2), (values[:1, :1, :, :2, :2],))
