"""Features at every place, against a forward pass by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm4seg.analysis.places import Features, attention_modules, features_of
from llm4seg.llm.store import LayerStore
from llm4seg.llm.transformers_internals import attention
from llm4seg.models import Hybrid, build_model
from tests.tiny_llm import model_section, tiny_store
from tests.tiny_vision import encoder_store

BLOCK = ["adapter_in", "layer.1.attention", "layer.1.mlp", "llm"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return tiny_store(tmp_path_factory.mktemp("llm"))


def build(store: LayerStore, bottleneck: str = "llm", dims: int = 2, **block: Any) -> Hybrid:
    torch.manual_seed(0)
    section = model_section(bottleneck, **block)
    model = build_model(section, store, spatial_dims=dims, in_channels=1, out_channels=3, seed=0)
    return model.eval()


def image(*size: int) -> Tensor:
    return torch.randn(1, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_each_place_has_what_a_pass_by_hand_gives(store: LayerStore) -> None:
    model, image_CS = build(store), image(16, 24)
    found = features_of(model, image_CS, [1])
    features_NCS = model.encoder(image_CS[None])[-1]
    block: Any = model.bottleneck
    grid = features_NCS.shape[2:]
    tokens_NTD = features_NCS.flatten(2).transpose(1, 2)
    adapted_NTE = block.adapter_in(tokens_NTD)
    llm_NTE = block.core(adapted_NTE, grid)
    out_NTD = block.adapter_out(llm_NTE)
    by_hand = {"encoder": tokens_NTD, "adapter_in": adapted_NTE, "llm": llm_NTE, "decoder_input": out_NTD}
    assert list(found.tokens) == ["encoder", *BLOCK, "decoder_input"]
    for place, wanted in by_hand.items():
        torch.testing.assert_close(found.tokens[place], wanted[0], rtol=1e-4, atol=1e-5)
    # a LLaMA layer adds to its tokens what attention gives, then what the MLP gives
    parts = sum(found.tokens[place] for place in BLOCK[:3])
    torch.testing.assert_close(found.tokens["llm"], parts, rtol=1e-4, atol=1e-5)
    assert set(found.grids.values()) == {(4, 6)}
    assert set(found.grids) == set(found.tokens)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov3_vit", "siglip_vision_model"])
def test_a_vision_layers_parts_are_what_they_add(kind: str, tmp_path: Path) -> None:
    """Behind LayerScale, where there is one; each row of the attention weights sums to 1 over all tokens."""
    model = build(encoder_store(tmp_path, kind, layerscale_value=0.5))
    found = features_of(model, image(16, 24), [1])
    assert list(found.tokens) == ["encoder", *BLOCK, "decoder_input"]
    parts = sum(found.tokens[place] for place in BLOCK[:3])
    torch.testing.assert_close(found.tokens["llm"], parts, rtol=1e-4, atol=1e-5)
    weights_HTT = found.attention[1]
    assert weights_HTT.shape == (4, 24, 24)
    assert (weights_HTT > 0).all()
    torch.testing.assert_close(weights_HTT.sum(2), torch.ones(4, 24))


@torch.no_grad()
def test_attention_weights_are_those_that_the_layer_attends_by(store: LayerStore) -> None:
    """With them and the values, by hand, what the attention adds."""
    model = build(store, attention="causal")
    found = features_of(model, image(16, 16), [1])
    weights_HTT = found.attention[1]
    torch.testing.assert_close(weights_HTT.sum(-1), torch.ones(4, 16))
    assert torch.equal(weights_HTT.triu(1), torch.zeros(4, 16, 16))
    block: Any = model.bottleneck
    layer = block.core.layers[0]
    values_TE = layer.self_attn.v_proj(layer.input_layernorm(found.tokens["adapter_in"]))
    values_HTE = values_TE.unflatten(1, (2, 16)).transpose(0, 1).repeat_interleave(2, 0)  # two heads share one
    added_TE = layer.self_attn.o_proj((weights_HTT @ values_HTE).transpose(0, 1).flatten(1))
    torch.testing.assert_close(found.tokens["layer.1.attention"], added_TE, rtol=1e-4, atol=1e-5)


def test_the_kernel_is_the_same_afterwards_whatever_happens(store: LayerStore) -> None:
    model = build(store)
    config = attention_modules(model.bottleneck, [1])[1].config
    before = attention(config)

    def broken(module: nn.Module, inputs: object) -> None:
        assert attention(config) == "eager" != before
        raise ZeroDivisionError

    hook = dict(model.named_modules())["bottleneck.core"].register_forward_pre_hook(broken)
    with pytest.raises(ZeroDivisionError):
        features_of(model, image(16, 16), [1])
    hook.remove()
    assert attention(config) == before
    found = features_of(model, image(16, 16), [1])
    assert attention(config) == before
    noted = dict(found.tokens)
    model(image(16, 16)[None] + 1)
    assert all(found.tokens[place] is tokens_TD for place, tokens_TD in noted.items())  # no hook is left


def places(found: Features) -> dict[str, tuple[int, ...]]:
    assert {place: len(tokens_TD) for place, tokens_TD in found.tokens.items()} == {
        place: int(torch.tensor(grid).prod()) for place, grid in found.grids.items()
    }
    return found.grids


def test_the_cnn_alone_has_one_place(store: LayerStore) -> None:
    assert places(features_of(build(store, "identity"), image(16, 16))) == {"encoder": (4, 4)}
    left_out = build(store, train_only=True)
    assert places(features_of(left_out, image(16, 16), [1])) == {"encoder": (4, 4)}


def test_an_mlp_has_no_layers(store: LayerStore) -> None:
    found = places(features_of(build(store, "mlp"), image(16, 16)))
    assert found == dict.fromkeys(["encoder", "adapter_in", "decoder_input"], (4, 4))


def test_several_layers_pooled_tokens_and_volumes(store: LayerStore) -> None:
    stacked = places(features_of(build(store, layer=[2, 1]), image(16, 16), [2, 1]))
    layers = [f"layer.{number}.{part}" for number in (2, 1) for part in ("attention", "mlp")]
    assert list(stacked) == ["encoder", "adapter_in", *layers, "llm", "decoder_input"]
    pooled = places(features_of(build(store, pool=2), image(16, 32), [1]))
    assert (pooled["encoder"], pooled["llm"], pooled["decoder_input"]) == ((4, 8), (2, 4), (4, 8))
    volume = places(features_of(build(store, dims=3), image(16, 8, 12), [1]))
    assert set(volume.values()) == {(4, 2, 3)}


def test_the_model_is_measured_in_evaluation_mode_whatever_it_was_in(store: LayerStore) -> None:
    model = build(store)
    wanted = features_of(model, image(16, 16), [1])
    model.train()
    again = features_of(model, image(16, 16), [1])
    assert all(torch.equal(again.tokens[place], tokens_TD) for place, tokens_TD in wanted.tokens.items())
    assert not any(isinstance(module, nn.BatchNorm2d) and module.training for module in model.modules())


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_a_layer_of_a_vision_transformer_has_the_same_places(tmp_path: Path, kind: str) -> None:
    found = features_of(build(encoder_store(tmp_path, kind)), image(16, 16), [1])
    assert list(found.tokens) == ["encoder", *BLOCK, "decoder_input"]
    assert found.attention[1].shape == (4, 16, 16)
    torch.testing.assert_close(found.attention[1].sum(-1), torch.ones(4, 16))
