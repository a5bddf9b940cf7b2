"""A vision transformer's layer in the block: what positions and attention mean there, and every option."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm4seg.llm.store import LayerStore
from llm4seg.models.bottleneck import LLMLayers, TokenBlock, build_bottleneck
from llm4seg.utils.errors import InputError
from tests.tiny_llm import block_section, model_section
from tests.tiny_vision import WIDTH, encoder_store

CHANNELS = 8
KINDS = ("vit", "dinov2", "dinov3_vit", "siglip_vision_model")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LayerStore]:
    changes: dict[str, dict[str, Any]] = {"dinov2": {"layerscale_value": 0.5, "drop_path_rate": 0.5}}
    return {kind: encoder_store(tmp_path_factory.mktemp(kind), kind, **changes.get(kind, {})) for kind in KINDS}


def block(store: LayerStore, seed: int = 0, **changes: Any) -> TokenBlock:
    torch.manual_seed(seed)
    built = build_bottleneck(model_section("llm", **changes), store, CHANNELS, seed)
    assert isinstance(built, TokenBlock)
    return built


def core(one: TokenBlock) -> LLMLayers:
    assert isinstance(one.core, LLMLayers)
    return one.core


def features(*size: int) -> Tensor:
    return torch.randn(2, CHANNELS, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_section_runs_on_any_grid_of_slices(stores: dict[str, LayerStore], kind: str) -> None:
    """`position: native` and `attention: bidirectional` are the encoder's own; its width is the adapters'."""
    one = block(stores[kind]).eval()
    assert (one.adapter_in.out_features, one.adapter_out.in_features) == (WIDTH, WIDTH)
    for grid in ((4, 4), (2, 5), (1, 7)):
        out = one(features(*grid))
        assert out.shape == (2, CHANNELS, *grid)
        assert out.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_sees_every_other(stores: dict[str, LayerStore], kind: str) -> None:
    one, before = block(stores[kind]).eval(), features(2, 3)
    for place in ((0, 0), (1, 2)):
        after = before.clone()
        after[:, :, place[0], place[1]] += 1
        assert ((one(after) - one(before)).abs().flatten(2).amax((0, 1)) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_only_dinov3_knows_where_a_token_is(stores: dict[str, LayerStore], kind: str) -> None:
    """The others learned positions at their input, which is no part of a layer."""
    x, order = features(6, 1), torch.tensor([3, 0, 5, 1, 4, 2])
    for position in ("native", "none"):
        one = block(stores[kind], position=position).eval()
        same = torch.allclose(one(x)[:, :, order], one(x[:, :, order]), atol=1e-5)
        assert same == (kind != "dinov3_vit" or position == "none")


def test_volumes_have_no_rows_and_columns_of_their_own(stores: dict[str, LayerStore]) -> None:
    volume = features(2, 3, 2)
    for kind in KINDS:
        assert block(stores[kind], position="none").eval()(volume).shape == volume.shape
    message = r"model\.llm\.position: found native, allowed: none, since this encoder rotates by rows and columns, and "
    with pytest.raises(InputError, match=message + r"the grid has 3 axes"):
        block(stores["dinov3_vit"])(volume)


@pytest.mark.parametrize("position", ["axial", "released"])
@pytest.mark.parametrize("kind", KINDS)
def test_positions_of_decoders_are_refused(stores: dict[str, LayerStore], kind: str, position: str) -> None:
    why = "rotates by rows and columns of its own" if kind == "dinov3_vit" else "rotates nothing in layer 1"
    message = rf"model\.llm\.position: found {position}, allowed: native or none, since a {kind} {why} \(source\)"
    with pytest.raises(InputError, match=message):
        block(stores[kind], position=position)


@pytest.mark.parametrize("kind", KINDS)
def test_causal_attention_is_refused(stores: dict[str, LayerStore], kind: str) -> None:
    message = rf"model\.llm\.attention: found causal, allowed: bidirectional, since a {kind} is an encoder"
    with pytest.raises(InputError, match=message):
        block(stores[kind], attention="causal")


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_layer_learns_nothing_and_is_never_random(stores: dict[str, LayerStore], kind: str) -> None:
    """Drop path is for training the encoder."""
    one, x = block(stores[kind]).train(), features(2, 2).requires_grad_()
    out = one(x)
    out.sum().backward()
    assert torch.equal(out, one(x))
    assert not any(module.training for module in core(one).layers.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in core(one).parameters())
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_a_trained_layer_has_drop_path(stores: dict[str, LayerStore]) -> None:
    one, x = block(stores["dinov2"], training="full").train(), features(2, 2)
    assert not torch.equal(one(x), one(x))
    one(x).sum().backward()
    assert all(parameter.grad is not None for parameter in core(one).layers.parameters())
    assert torch.equal(one.eval()(x), block(stores["dinov2"]).eval()(x))


@pytest.mark.parametrize("kind", KINDS)
def test_lora_begins_as_no_change_and_alone_learns(stores: dict[str, LayerStore], kind: str) -> None:
    x = features(2, 2)
    changed, frozen = block(stores[kind], training="lora", lora={"rank": 2, "alpha": 4}), block(stores[kind])
    assert torch.equal(changed.eval()(x), frozen.eval()(x))
    changed.train()(x).square().sum().backward()
    trained = {name for name, parameter in changed.core.named_parameters() if parameter.requires_grad}
    linear = [module for module in frozen.core.modules() if type(module) is nn.Linear]
    assert len(trained) == 2 * len(linear) == 2 * 6  # four of attention, two of the MLP
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize(("dtype", "error"), [("bf16", 0.05), ("int8", 0.02), ("int4", 0.2)])
@pytest.mark.parametrize("kind", KINDS)
def test_narrow_weights_stay_near_float32(stores: dict[str, LayerStore], kind: str, dtype: str, error: float) -> None:
    exact, narrow, x = block(stores[kind]).eval(), block(stores[kind], dtype=dtype).eval(), features(3, 3)
    assert narrow(x).dtype == torch.float32
    assert 0 < (narrow(x) - exact(x)).abs().max() < error * exact(x).abs().max()


def test_random_layers_are_as_the_architecture_begins(stores: dict[str, LayerStore]) -> None:
    """DINOv2's LayerScale at its own value, norms at 1, matrices by a truncated normal distribution of 0.02."""
    layer: Any = core(block(stores["dinov2"], weights="random")).layers[0]
    assert torch.equal(layer.layer_scale1.lambda1, torch.full((WIDTH,), 0.5))
    assert torch.equal(layer.norm1.weight, torch.ones(WIDTH))
    assert layer.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not layer.mlp.fc1.bias.any()


@pytest.mark.parametrize("weights", ["random", "shuffled"])
@pytest.mark.parametrize("kind", KINDS)
def test_controls_follow_the_seed(stores: dict[str, LayerStore], kind: str, weights: str) -> None:
    first, again, other, pretrained = (
        block(stores[kind], seed, weights=one).core.state_dict()
        for seed, one in ((0, weights), (0, weights), (1, weights), (0, "pretrained"))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in first:
        if first[name].ndim > 1:
            assert not torch.equal(first[name], other[name])
            same_entries = torch.equal(first[name].flatten().sort()[0], pretrained[name].flatten().sort()[0])
            assert same_entries == (weights == "shuffled")


@pytest.mark.parametrize("kind", KINDS)
def test_residual_pool_and_several_layers(stores: dict[str, LayerStore], kind: str) -> None:
    x = features(4, 6)
    none, plain, pooled = (
        block(stores[kind], layer=[2, 1], **changes).eval()
        for changes in ({}, {"residual": "plain"}, {"pool": 2, "norm": True})
    )
    assert torch.equal(plain(x), x + none(x))
    assert pooled(x).shape == x.shape


@pytest.mark.parametrize("training", ["frozen", "lora"])
def test_checkpointing_changes_no_number(stores: dict[str, LayerStore], training: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        one = block(stores["dinov3_vit"], training=training, checkpointing=checkpointing, layer="1-2").train()
        x = features(3, 2).requires_grad_()
        one(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in one.parameters() if p.requires_grad)])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_positions_are_made_once_and_belong_to_no_model(stores: dict[str, LayerStore]) -> None:
    """Without weights or buffers; what inference made serves a later training, and a copy computes the same."""
    layers = LLMLayers(block_section(layer=1), stores["dinov3_vit"], 0)
    tokens = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = layers(tokens, (2, 3)).clone()
    layers(tokens.requires_grad_(), (2, 3)).sum().backward()
    assert tokens.grad is not None
    for twin in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers))):
        assert torch.equal(twin(tokens, (2, 3)), expected)
    assert not [*layers.buffers()]
    assert not any("rotary" in name for name in layers.state_dict())


def test_a_store_of_another_kind_of_position(stores: dict[str, LayerStore], tmp_path: Path) -> None:
    """Rotary positions follow from the config alone: another base is another result."""
    other = encoder_store(tmp_path, "dinov3_vit", rope_theta=7.0)
    tokens = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(0))
    first, second = (
        LLMLayers(block_section(layer=1), store, 0).eval()(tokens, (2, 3)) for store in (stores["dinov3_vit"], other)
    )
    assert not torch.allclose(first, second, atol=1e-4)
