"""What sits in the bottleneck: the LLM's own layers, their positions and masks, and every option of the block."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llm4seg.llm.architecture import meta_model, rotary_embedding
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.models.bottleneck import TokenBlock, build_bottleneck
from llm4seg.models.bottleneck.position import attention_mask, rotation
from llm4seg.utils.errors import InputError
from tests.tiny_llm import model_section, save_llm, section, tiny_llm, tiny_store

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


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_attention_backends_agree(store: LayerStore, attention: str) -> None:
    one, x = block(store, attention=attention).eval(), features(4, 3)
    results = []
    for backend in ("sdpa", "eager"):
        one.core.layers[0].self_attn.config._attn_implementation = backend
        results.append(one(x))
    assert torch.allclose(*results, atol=1e-5)


@pytest.mark.parametrize("position", ["native", "released", "none"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_causal_attention_sees_no_later_token(store: LayerStore, attention: str, position: str) -> None:
    one, before = block(store, attention=attention, position=position).eval(), features(2, 3)
    after = before.clone()
    after[:, :, 1, 0] += 1  # token 3 in raster order
    changed = (one(after) - one(before)).abs().flatten(2).amax((0, 1)) > 1e-6
    assert changed.tolist() == [attention == "bidirectional"] * 3 + [True] * 3


def test_no_position_means_that_order_does_not_matter(store: LayerStore) -> None:
    x, order = features(6, 1), torch.tensor([3, 0, 5, 1, 4, 2])
    for position, same in {"none": True, "native": False, "released": False}.items():
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
    """By the architecture's own initializer: matrices normal with 0.02, norms 1; nothing pre-trained is left."""
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


def test_layers_are_stacked_in_the_order_given(store: LayerStore) -> None:
    x = features(2, 3)
    both, first, second = (block(store, layer=layer).eval() for layer in ([2, 1], 2, 1))
    tokens, grid = both.adapter_in(x.flatten(2).transpose(1, 2)), (2, 3)
    assert torch.equal(both.core(tokens, grid), second.core(first.core(tokens, grid), grid))
    assert not torch.allclose(both.core(tokens, grid), first.core(second.core(tokens, grid), grid), atol=1e-3)


def test_the_final_norm_comes_last(store: LayerStore) -> None:
    with_norm, without = block(store, norm=True).eval(), block(store).eval()
    tokens = torch.randn(2, 6, 64)
    expected = tiny_llm().norm(without.core(tokens, (2, 3)))
    assert torch.allclose(with_norm.core(tokens, (2, 3)), expected, atol=1e-6)


def test_shuffled_weights_have_the_same_entries_elsewhere(store: LayerStore) -> None:
    shuffled, pretrained = block(store, weights="shuffled", norm=True).core.state_dict(), store.load(1)
    for name, tensor in pretrained.items():
        ours = shuffled[f"layers.0.{name}"]
        assert torch.equal(ours.flatten().sort()[0], tensor.float().flatten().sort()[0])
        assert (ours == tensor).float().mean() < 0.2, f"{name} is hardly shuffled"
    assert torch.equal(shuffled["norm.weight"].sort()[0], store.load_norm()["weight"].sort()[0])


@pytest.mark.parametrize("weights", ["random", "shuffled"])
def test_controls_follow_the_seed_and_nothing_else(store: LayerStore, weights: str) -> None:
    def layer(seed: int, drawn_before: int = 0) -> Tensor:
        torch.manual_seed(drawn_before)
        torch.rand(drawn_before)
        built = build_bottleneck(model_section(weights=weights), store, CHANNELS, seed)
        return built.get_parameter("core.layers.0.mlp.up_proj.weight")

    assert torch.equal(layer(0), layer(0, drawn_before=5))
    assert not torch.equal(layer(0), layer(1))


def test_lora_begins_as_no_change_and_alone_learns(store: LayerStore) -> None:
    changed, frozen = block(store, training="lora", **{"lora": {"rank": 2, "alpha": 4}}).train(), block(store).train()
    x = features(2, 2)
    assert torch.equal(changed(x), frozen(x))
    changed(x).square().sum().backward()
    trained = {name for name, parameter in changed.core.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 7  # a pair for each matrix of a LLaMA layer
    assert all("lora_" in name for name in trained)
    assert changed.core.get_parameter("layers.0.mlp.up_proj.lora_B.default.weight").grad is not None
    pair = changed.core.layers[0].mlp.up_proj
    assert (pair.lora_A["default"].weight.shape[0], pair.scaling["default"]) == (2, 2.0)


def test_lora_on_fused_experts_is_refused(tmp_path: Path) -> None:
    """They are most of the layer, and no linear maps."""
    experts = tiny_store(tmp_path, kind="mixtral", num_local_experts=3)
    with pytest.raises(
        InputError, match=r"training: found lora, allowed: frozen or full, since 0\.mlp\..* is no linear"
    ):
        block(experts, training="lora")


def test_bottleneck_adapters_are_as_wide_as_told(store: LayerStore) -> None:
    kind = {"kind": "bottleneck", "width": 5, "activation": "silu", "norm": True}
    one = block(store, adapter=kind)
    assert [tuple(p.shape) for p in one.adapter_in.parameters()] == [(8,), (8,), (5, 8), (5,), (64, 5), (64,)]
    assert any(isinstance(module, nn.SiLU) for module in one.adapter_out)
    assert one(features(2, 2)).shape == (2, CHANNELS, 2, 2)
    plain = block(store, adapter=kind | {"norm": False})
    assert not any(isinstance(module, nn.LayerNorm) for module in plain.adapter_in)


def trained_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("adapter", [{}, {"kind": "bottleneck", "width": 24}])
def test_mlp_control_trains_as_many_parameters_as_the_adapters(store: LayerStore, adapter: dict[str, Any]) -> None:
    values = model_section().llm.adapter.model_dump() | adapter
    llm, control = block(store, adapter=values), block(store, bottleneck="mlp", adapter=values)
    assert trained_parameters(control) == pytest.approx(trained_parameters(llm), abs=2 * CHANNELS + 1)
    assert trained_parameters(control) == sum(parameter.numel() for parameter in control.parameters())
    x = features(2, 3)
    assert torch.allclose(control(x)[..., 1, 2], control(x[..., 1:, 2:])[..., 0, 0], atol=1e-6)  # token by token


def test_residuals(store: LayerStore) -> None:
    x = features(2, 3)
    none, plain, gate = (block(store, residual=residual).eval() for residual in ("none", "plain", "gate"))
    assert torch.equal(plain(x), x + none(x))
    assert torch.equal(gate(x), x)
    with torch.no_grad():
        gate.gate.scale += torch.arange(CHANNELS)
    assert torch.allclose(gate(x), x + none(x) * torch.arange(CHANNELS)[:, None, None], atol=1e-6)


@pytest.mark.parametrize("grid", [(4, 6), (4, 2, 6)])
def test_pooling_gives_fewer_tokens_and_the_same_grid(store: LayerStore, grid: tuple[int, ...]) -> None:
    one, x = block(store, pool=2).eval(), features(*grid)
    seen = []
    one.core.register_forward_pre_hook(lambda core, given: seen.append((given[0].shape[1], tuple(given[1]))))
    assert one(x).shape == x.shape
    assert seen == [(x[0, 0].numel() // 2 ** len(grid), tuple(side // 2 for side in grid))]
    with pytest.raises(InputError, match=r"model\.llm\.pool: found 2, which does not divide .* grid \[3, 4\]"):
        one(features(3, 4))


def test_too_many_tokens_are_refused(store: LayerStore) -> None:
    one = block(store, max_tokens=12)
    assert one(features(3, 4)).shape == (2, CHANNELS, 3, 4)
    with pytest.raises(InputError, match=r"model\.llm\.max_tokens: found a grid of 4 x 4 = 16 tokens, allowed: 12"):
        one(features(4, 4))


def test_any_grid_also_at_test_time(store: LayerStore) -> None:
    for position in ("native", "axial", "released", "none"):
        one = block(store, position=position).eval()
        for grid in ((2, 2), (5, 3), (1, 7), (2, 3, 4)):
            assert one(features(*grid)).isfinite().all()


def test_axial_positions_treat_axes_alike(store: LayerStore) -> None:
    """What counts is how far apart tokens are along each axis, wherever on the grid they are."""
    one = block(store, position="axial").eval()
    rotary_at = partial(one.core.rotary, torch.zeros(1))
    cos, sin = rotation("axial", rotary_at, (3, 4), torch.device("cpu"))
    q, k = torch.randn(2, 1, 1, 1, 16)
    rotated = [apply_rotary_pos_emb(one.expand(1, 1, 12, 16), one.expand(1, 1, 12, 16), cos, sin)[0] for one in (q, k)]
    score = (rotated[0] @ rotated[1].transpose(-1, -2)).reshape(3, 4, 3, 4)
    assert torch.allclose(score[0, 0, 1, 2], score[1, 1, 2, 3], atol=1e-5)  # both one row down, two columns right
    assert torch.allclose(score[2, 0, 2, 3], score[0, 0, 0, 3], atol=1e-5)  # same row
    assert not torch.allclose(score[0, 0, 1, 2], score[0, 0, 2, 1], atol=1e-3)


def test_without_positions_an_llm_keeps_the_scale_of_its_attention() -> None:
    """Yarn makes the cosines of position 0 larger than 1."""
    values = tiny_llm("llama").config.to_dict()
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
    rotary = rotary_embedding(meta_model(values | {"rope_parameters": yarn}))
    cos, sin = rotation("none", partial(rotary, torch.zeros(1)), (2, 3), torch.device("cpu"))
    assert rotary.attention_scaling > 1.1
    assert torch.equal(cos, torch.full_like(cos, rotary.attention_scaling))
    assert torch.equal(sin, torch.zeros_like(sin))


@pytest.mark.parametrize("kind", ["llama", "cohere"])
def test_axial_shares_the_frequencies_out_over_the_axes(kind: str, tmp_path: Path) -> None:
    """In LLaMA the two dimensions that rotate together lie half a head apart, in Cohere side by side."""
    rotary = rotary_embedding(meta_model(tiny_llm(kind).config.to_dict()))
    native = rotary(torch.zeros(1), torch.arange(50)[None])
    for grid in ((5, 7), (2, 3, 5)):
        cos, sin = rotation("axial", partial(rotary, torch.zeros(1)), grid, torch.device("cpu"))
        places = torch.cartesian_prod(*(torch.arange(side) for side in grid))
        axes = []
        for d in range(cos.shape[-1]):
            fits = [
                torch.equal(cos[0, :, d], native[0][0, along, d]) and torch.equal(sin[0, :, d], native[1][0, along, d])
                for along in places.T
            ]
            axes.append(fits.index(True))
        halves = axes[: len(axes) // 2] if kind == "llama" else axes[::2]
        assert axes == (halves + halves if kind == "llama" else [axis for axis in halves for _ in (0, 1)])
        counts = [halves.count(axis) for axis in range(len(grid))]
        assert max(counts) - min(counts) <= 1


def test_a_line_of_tokens_has_the_native_positions(store: LayerStore) -> None:
    native, axial, x = block(store).eval(), block(store, position="axial").eval(), features(7)
    assert torch.allclose(native(x), axial(x), atol=1e-6)


def test_left_out_when_predicting(store: LayerStore) -> None:
    one, x = block(store, train_only=True), features(2, 2)
    assert torch.equal(one.eval()(x), x)
    assert not torch.allclose(one.train()(x), x, atol=1e-3)


@pytest.mark.parametrize("training", ["frozen", "full", "lora"])
def test_checkpointing_changes_no_number(store: LayerStore, training: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        one, x = block(store, training=training, checkpointing=checkpointing, layer="1-2").train(), features(3, 2)
        one(x.requires_grad_()).square().sum().backward()
        trained = [p.grad for p in one.parameters() if p.requires_grad and p.grad is not None]
        gradients.append([x.grad, *trained])
    assert len(gradients[0]) == len(gradients[1]) > 4
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def entries_kept(one: TokenBlock) -> int:
    """Entries of all tensors that autograd keeps in a forward pass."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        one(features(8, 8))
    return sum(sizes)


def test_checkpointing_keeps_fewer_activations(store: LayerStore) -> None:
    without, with_it = (entries_kept(block(store, checkpointing=value).train()) for value in (False, True))
    assert with_it < 0.5 * without


def test_bfloat16_layers_stay_near_float32(store: LayerStore) -> None:
    exact, half, x = block(store).eval(), block(store, dtype="bf16").eval(), features(3, 3)
    assert {p.dtype for p in half.core.parameters()} == {torch.bfloat16}
    assert half(x).dtype == torch.float32
    assert (half(x) - exact(x)).abs().max() < 0.05 * exact(x).abs().max()


def test_the_mask_that_hides_nothing_is_of_the_kind_that_cudas_kernels_take() -> None:
    """The memory-efficient kernel takes a mask only if its entries lie side by side; the others hold all scores."""
    mask = attention_mask(64, "bidirectional", None, torch.zeros(1))
    assert mask.shape == (1, 1, 64, 64)
    assert mask.stride(-1) == 1
    assert mask.untyped_storage().nbytes() == 64 * 4
    assert not mask.any()
