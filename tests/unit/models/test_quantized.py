"""Frozen layers in fewer bits: how near they stay, that gradients pass through them, that nothing else holds them."""

import copy
import pickle
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid, build_model
from llm4seg.models.bottleneck.layers import LLMLayers
from llm4seg.models.bottleneck.quantized import LINEAR, QuantizedLinear, quantize
from llm4seg.tools.profile_model import cost
from llm4seg.utils.errors import InputError
from tests.tiny_llm import block_section, model_section, tiny_store

DTYPES = ("fp32", "bf16", "int8", "int4")
QUANTISED = ("int8", "int4")
WEIGHT_ERROR = {"int8": 0.006, "int4": 0.085}  # of normally distributed weights
LAYER_ERROR = {"bf16": 0.03, "int8": 0.02, "int4": 0.2}  # where those of seven matrices come together
GRID = (4, 6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    """Of a LLaMA as wide as the default LLM."""
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    return tiny_store(tmp_path_factory.mktemp("llm"), **shape, head_dim=64, num_hidden_layers=3)


def layers(store: LayerStore, **changes: Any) -> LLMLayers:
    return LLMLayers(block_section(**changes), store, 0)


def linear(inputs: int = 576, outputs: int = 96, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    one = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(one.weight, std=0.05)
    return one.requires_grad_(False)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def passed(module: Any, tokens: Tensor, *about: Any) -> tuple[Tensor, Tensor]:
    """A module's output, and the gradient of a fixed function of it for the input."""
    tokens = tokens.clone().requires_grad_()
    out = module(tokens, *about)
    (out.float() * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
    assert tokens.grad is not None
    return out.detach(), tokens.grad


@pytest.mark.parametrize("dtype", QUANTISED)
def test_weights_stay_near(dtype: str) -> None:
    exact = linear()
    assert error(LINEAR[dtype](exact).weight, exact.weight) < WEIGHT_ERROR[dtype]


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("inputs", [576, 48, 7])
def test_the_gradient_is_that_of_the_layer_with_the_restored_weights(dtype: str, inputs: int) -> None:
    """Also where the row is no whole number of groups."""
    exact, tokens = linear(inputs), torch.randn(2, 5, inputs)
    quantized = LINEAR[dtype](exact)
    exact.weight.copy_(quantized.weight)
    assert quantized.weight.shape == exact.weight.shape
    for ours, expected in zip(passed(quantized, tokens), passed(exact, tokens), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("dtype", QUANTISED)
def test_each_group_uses_the_whole_range(dtype: str) -> None:
    codes = LINEAR[dtype](linear()).codes
    if dtype == "int4":
        levels = torch.cat([codes & 15, codes >> 4], dim=2)
        assert (levels.amin(2) == 0).all()
        assert (levels.amax(2) == 15).all()
    else:
        assert (codes.abs().amax(2) == 127).all()


@pytest.mark.parametrize("dtype", QUANTISED)
def test_groups_of_equal_entries(dtype: str) -> None:
    """Whose scale is zero, or vanishes in 16 bits."""
    exact = linear(64, 4)
    exact.weight[0], exact.weight[1], exact.weight[2] = 0, 0.75, -1e-6
    restored = LINEAR[dtype](exact).weight
    assert torch.allclose(restored[:3], exact.weight[:3], atol=2e-6, rtol=1e-3)
    assert restored.isfinite().all()


@pytest.mark.parametrize(("dtype", "kind"), [("int8", "Q8_0"), ("int4", "Q4_1")])
def test_weights_out_of_a_gguf_file_stay_what_they_are(dtype: str, kind: str) -> None:
    """They are of few values a group already, and the same values are found again."""
    weight = np.random.default_rng(0).normal(0, 0.05, (24, 576)).astype(np.float32)
    of_kind, exact = gguf.GGMLQuantizationType[kind], linear(576, 24)
    exact.weight.copy_(torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight, of_kind), of_kind)))
    assert torch.equal(LINEAR[dtype](exact).weight, exact.weight)


def bits(one: QuantizedLinear) -> float:
    held = sum(tensor.nbytes for name, tensor in one.named_buffers())
    return 8 * held / (one.in_features * one.out_features)


def test_bits_an_entry() -> None:
    assert bits(LINEAR["int8"](linear())) == 8.5
    assert bits(LINEAR["int4"](linear())) == 5


@pytest.mark.parametrize("dtype", LAYER_ERROR)
def test_a_layer_stays_near_float32(store: LayerStore, dtype: str) -> None:
    """Of what it adds to its input, and of what that adds to the gradient."""
    tokens, bound = torch.randn(2, 24, 576), LAYER_ERROR[dtype]
    exact, ours = (passed(layers(store, weights="random", dtype=one), tokens, GRID) for one in ("fp32", dtype))
    straight = torch.linspace(-1, 1, tokens.numel()).reshape(tokens.shape)
    for found, expected, around in zip(ours, exact, (tokens, straight), strict=True):
        assert bound / 4 < error(found - around, expected - around) < bound


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "phi3"])
def test_a_layer_computes_with_the_restored_weights(kind: str, dtype: str, tmp_path: Path) -> None:
    """Biases, norms and fused matrices: everything but the entries of matrices is as it was."""
    small = tiny_store(tmp_path, kind=kind)
    ours, exact = layers(small, dtype=dtype), layers(small)
    matrices = {name: one for name, one in ours.named_modules() if isinstance(one, QuantizedLinear)}
    assert len(matrices) == (4 if kind == "phi3" else 7)
    for name, one in matrices.items():
        exact.get_parameter(f"{name}.weight").copy_(one.weight)
    tokens = torch.randn(2, 24, 64)
    for found, expected in zip(passed(ours, tokens, GRID), passed(exact, tokens, GRID), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", QUANTISED)
def test_under_autocast(store: LayerStore, dtype: str) -> None:
    """In bfloat16 the maps compute in it, and the gradient arrives in the input's own dtype."""
    tokens, one = torch.randn(2, 24, 576), layers(store, dtype=dtype)
    exact = passed(one, tokens, GRID)
    with torch.autocast("cpu", torch.bfloat16):
        assert one.layers[0].mlp.up_proj(tokens).dtype == torch.bfloat16
        mixed = passed(one, tokens, GRID)
    assert mixed[1].dtype == torch.float32
    for found, expected in zip(mixed, exact, strict=True):
        assert 0.001 < error(found, expected) < 0.05


@pytest.mark.parametrize("dtype", QUANTISED)
def test_the_backward_pass_keeps_no_restored_matrix(dtype: str) -> None:
    """Nothing but the integers is there between the passes: neither the matrix nor the input is kept."""
    kept: list[Tensor] = []
    quantized, tokens = LINEAR[dtype](linear()), torch.randn(2, 5, 576, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        out = quantized(tokens)
    assert kept == []
    assert [*vars(out.grad_fn)] == ["linear"]
    assert out.grad_fn.linear is quantized


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_compute_the_same(store: LayerStore, dtype: str, copied: Any) -> None:
    one, tokens = layers(store, dtype=dtype), torch.randn(2, 24, 576)
    for found, expected in zip(passed(copied(one), tokens, GRID), passed(one, tokens, GRID), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", QUANTISED)
def test_integers_go_along_to_a_device_and_stay_integers(store: LayerStore, dtype: str) -> None:
    moved = layers(store, dtype=dtype).to("meta").layers[0].mlp.up_proj
    assert {tensor.device.type for tensor in moved.buffers()} == {"meta"}
    assert layers(store, dtype=dtype).double().layers[0].mlp.up_proj.codes.dtype in (torch.int8, torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_frozen_layers_stay_in_evaluation_mode_and_learn_nothing(store: LayerStore, dtype: str) -> None:
    one = layers(store, dtype=dtype)
    one.train().train(True)
    assert not any(module.training for module in one.modules())
    passed(one, torch.randn(1, 24, 576), GRID)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in one.parameters())


def test_only_what_is_frozen_goes_to_bfloat16(store: LayerStore) -> None:
    """Small steps of an optimizer would vanish in bfloat16's rounding."""
    one = layers(store, dtype="bf16", training="lora")
    assert {(p.requires_grad, p.dtype) for p in one.parameters()} == {(True, torch.float32), (False, torch.bfloat16)}
    out, gradient = passed(one, torch.randn(1, 24, 576), GRID)
    assert out.dtype == gradient.dtype == torch.float32
    changed = [p.grad for name, p in one.named_parameters() if "lora_B" in name]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in changed)


def test_experts_are_refused(tmp_path: Path) -> None:
    small = tiny_store(tmp_path, kind="gpt_oss")
    with pytest.raises(InputError, match=r"model\.llm\.dtype: found int4, allowed: fp32 or bf16, since layers\.0\.mlp"):
        layers(small, dtype="int4")
    assert layers(small, dtype="bf16")


def test_a_map_of_another_kind_is_refused() -> None:
    class Doubled(nn.Linear):
        def forward(self, tokens: Tensor) -> Tensor:
            return 2 * super().forward(tokens)

    with pytest.raises(InputError, match=r"0\.weight is no linear map"):
        quantize(nn.Sequential(Doubled(4, 4)), "int8")


def hybrid(store: LayerStore, **changes: Any) -> Hybrid:
    torch.manual_seed(0)
    section = model_section(**changes)
    return build_model(section, store, spatial_dims=2, in_channels=1, out_channels=3, seed=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weights_file_holds_nothing_of_a_frozen_layer(store: LayerStore, dtype: str) -> None:
    model, fresh = hybrid(store, dtype=dtype), hybrid(store, dtype=dtype)
    assert not any(name.startswith("bottleneck.core") for name in model.trainable_state_dict())
    assert not any("codes" in name or "scale" in name for name in model.state_dict())
    x = torch.randn(2, 1, 16, 16)
    model.train()(x)
    fresh.load_weights(model.trainable_state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), model.eval()(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_are_counted_however_they_are_held(store: LayerStore, dtype: str) -> None:
    ours, exact = hybrid(store, dtype=dtype), hybrid(store)
    assert ours.parameter_counts() == exact.parameter_counts()
    assert cost(ours.bottleneck, (1, 8, 2, 2)) == cost(exact.bottleneck, (1, 8, 2, 2))
