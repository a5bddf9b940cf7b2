"""The LLM block: the LLM's own layer, its positions and masks, frozen or trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llm4seg.errors import InputError
from llm4seg.llm.fill import fill_store
from llm4seg.llm.store import LayerStore
from llm4seg.models.bottleneck import TokenBlock, build_bottleneck
from tests.tiny_llm import layer_input_and_output, model_section, save_llm, section, tiny_llm, tiny_store

CHANNELS = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return tiny_store(tmp_path_factory.mktemp("llm"))


def block(store: LayerStore, seed: int = 0, bottleneck: str = "llm", **changes: Any) -> TokenBlock:
    torch.manual_seed(seed)
    built = build_bottleneck(model_section(bottleneck, **changes), store, CHANNELS, seed)
    assert isinstance(built, TokenBlock)
    return built


def features(*size: int) -> Tensor:
    return torch.randn(2, CHANNELS, *size, generator=torch.Generator().manual_seed(0))


FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "phi3": {},
    "gemma2": {},
    "gemma3_text": {"layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]},
    "smollm3": {"no_rope_layers": [1, 1, 0, 1]},
    "gpt_oss": {},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_computes_what_the_whole_llm_computes_there(kind: str, tmp_path: Path) -> None:
    """Layer 2 of 4: biases, extra norms, experts and what differs from layer to layer come from the config alone."""
    llm, store = tiny_llm(kind, **FAMILIES[kind]), tiny_store(tmp_path, (2,), kind, **FAMILIES[kind])
    hidden, expected = layer_input_and_output(llm, 2)
    with torch.no_grad():
        ours = block(store, layer=2, attention="causal").eval().core(hidden, (hidden.shape[1],))
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_attention_backends_agree(store: LayerStore, attention: str) -> None:
    one, x = block(store, attention=attention).eval(), features(4, 3)
    results = []
    for backend in ("sdpa", "eager"):
        one.core.layers[0].self_attn.config._attn_implementation = backend
        results.append(one(x))
    assert torch.allclose(*results, atol=1e-5)


@pytest.mark.parametrize("position", ["native", "paper", "none"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_causal_attention_sees_no_later_token(store: LayerStore, attention: str, position: str) -> None:
    one, before = block(store, attention=attention, position=position).eval(), features(2, 3)
    after = before.clone()
    after[:, :, 1, 0] += 1  # token 3 in raster order
    changed = (one(after) - one(before)).abs().flatten(2).amax((0, 1)) > 1e-6
    assert changed.tolist() == [attention == "bidirectional"] * 3 + [True] * 3


def test_no_position_means_that_order_does_not_matter(store: LayerStore) -> None:
    x, order = features(6, 1), torch.tensor([3, 0, 5, 1, 4, 2])
    for position, same in {"none": True, "native": False, "paper": False}.items():
        one = block(store, position=position).eval()
        assert torch.allclose(one(x)[:, :, order], one(x[:, :, order]), atol=1e-5) == same


def test_tokens_are_in_raster_order_in_any_number_of_dimensions(store: LayerStore) -> None:
    one, x = block(store).eval(), features(2, 3, 2)
    assert one(x).shape == x.shape
    assert torch.allclose(one(x).flatten(2), one(x.flatten(2)), atol=1e-6)


def test_a_layer_that_returns_a_tuple(store: LayerStore) -> None:
    """As transformers before 4.54 did, and some architectures do."""
    one, x = block(store).eval(), features(2, 2)
    expected = one(x)
    one.core.layers[0].register_forward_hook(lambda layer, inputs, out: (out, None))
    assert torch.equal(one(x), expected)


def test_frozen_layer_learns_nothing_but_lets_gradients_through(store: LayerStore) -> None:
    one, x = block(store, training="frozen"), features(2, 2).requires_grad_()
    one.train()
    one(x).sum().backward()
    assert not one.core.layers[0].training
    assert one.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in one.core.layers[0].parameters())
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in [*one.adapter_in.parameters(), *one.adapter_out.parameters()])


def test_trained_layer_learns(store: LayerStore) -> None:
    one = block(store, training="full").train()
    one(features(2, 2)).sum().backward()
    assert one.core.layers[0].training
    assert all(parameter.grad is not None for parameter in one.core.layers[0].parameters())


def test_computes_in_float32_whatever_the_checkpoint(tmp_path: Path) -> None:
    source = save_llm(tmp_path / "half", tiny_llm().bfloat16())
    half = fill_store(tmp_path / "store", section(source), [1], tmp_path / "cache")
    assert half.load(1)["mlp.up_proj.weight"].dtype == torch.bfloat16
    assert {parameter.dtype for parameter in block(half).parameters()} == {torch.float32}


def test_random_layer_is_random_in_every_tensor(store: LayerStore) -> None:
    """By the architecture's own initialiser: matrices normal with 0.02, norms 1; nothing pre-trained is left."""
    one, pretrained = block(store, weights="random"), store.load(1)
    for name, tensor in one.core.layers[0].state_dict().items():
        assert (tensor - pretrained[name]).abs().max() > 0.01, name
        if "norm" in name:
            assert torch.equal(tensor, torch.ones_like(tensor))
        else:
            assert tensor.std() == pytest.approx(0.02, rel=0.1)


def test_random_layer_follows_the_seed(store: LayerStore) -> None:
    first, again, other = (block(store, seed, weights="random").core.layers[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mlp.up_proj.weight"], other["mlp.up_proj.weight"])


def test_random_layer_needs_no_layer_in_the_store_but_one_that_exists(store: LayerStore) -> None:
    assert block(store, weights="random", layer=3)
    with pytest.raises(InputError, match=r"model\.llm\.layer: found 4, allowed: 0 to 3 \(source\)"):
        block(store, weights="random", layer=4)
    with pytest.raises(InputError, match=r"model\.llm\.layer: found 3, allowed: 1, 2"):
        block(store, layer=3)


def test_rotary_frequencies_are_no_weights(store: LayerStore) -> None:
    assert not any("rotary" in name for name in block(store).state_dict())
