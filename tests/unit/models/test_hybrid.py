"""The hybrid: what is drawn, what is trained, what a weights file holds."""

import pytest
import torch
from torch import nn

from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid, build_model
from llm4seg.utils.errors import InputError
from tests.tiny_llm import model_section, tiny_store

VARIANTS = {
    "frozen": {},
    "another layer": {"layer": 2},
    "trained": {"training": "full"},
    "random": {"weights": "random", "training": "full"},
    "frozen random": {"weights": "random"},
    "shuffled": {"weights": "shuffled"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return tiny_store(tmp_path_factory.mktemp("llm"))


def build(store: LayerStore, bottleneck: str = "llm", seed: int = 0, dims: int = 2, **block: str | int) -> Hybrid:
    torch.manual_seed(seed)
    section = model_section(bottleneck, **block)
    return build_model(section, store, spatial_dims=dims, in_channels=1, out_channels=3, seed=seed)


def test_identity_is_the_cnn_alone(store: LayerStore) -> None:
    model, x = build(store, "identity").eval(), torch.randn(2, 1, 16, 16)
    assert isinstance(model.bottleneck, nn.Identity)
    assert torch.equal(model(x), model.decoder(model.encoder(x)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_cnn_starts_from_the_same_weights_whatever_the_bottleneck(store: LayerStore, variant: str) -> None:
    """So that a comparison between variants under one seed is a paired one."""
    baseline, model = build(store, "identity").state_dict(), build(store, **VARIANTS[variant]).state_dict()
    assert all(torch.equal(model[name], tensor) for name, tensor in baseline.items())
    adapters = {name: tensor for name, tensor in build(store).state_dict().items() if ".adapter" in name}
    assert len(adapters) == 4
    assert all(torch.equal(model[name], tensor) for name, tensor in adapters.items())


def test_seeds_differ(store: LayerStore) -> None:
    first, other = build(store).state_dict(), build(store, seed=1).state_dict()
    assert not torch.equal(first["encoder.stem.0.weight"], other["encoder.stem.0.weight"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_leave_out_what_is_frozen_of_the_llm(store: LayerStore, variant: str) -> None:
    model = build(store, **VARIANTS[variant])
    left_out = model.state_dict().keys() - model.trainable_state_dict().keys()
    frozen = {f"bottleneck.core.layers.0.{name}" for name in store.load(1)}
    assert left_out == (frozen if VARIANTS[variant].get("training", "frozen") == "frozen" else set())


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_restore_a_model(store: LayerStore, variant: str) -> None:
    trained, fresh = build(store, **VARIANTS[variant]), build(store, **VARIANTS[variant])
    x = torch.randn(2, 1, 16, 16)
    trained.train()(x)  # moves BatchNorm's statistics
    fresh.load_weights(trained.trainable_state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), trained.eval()(x))


def test_weights_that_do_not_fit(store: LayerStore) -> None:
    model = build(store)
    state = model.trainable_state_dict()
    with pytest.raises(InputError, match=r"model weights: decoder\.head\.bias is missing"):
        model.load_weights({name: tensor for name, tensor in state.items() if name != "decoder.head.bias"})
    with pytest.raises(InputError, match=r"model weights: bottleneck\.core\.layers\..* is unexpected"):
        model.load_weights(build(store, training="full").trainable_state_dict())
    with pytest.raises(InputError, match=r"model weights: decoder\.head\.bias: found shape \[2\], allowed: \[3\]"):
        model.load_weights({**state, "decoder.head.bias": torch.zeros(2)})


def test_parameter_counts(store: LayerStore) -> None:
    layer = sum(tensor.numel() for tensor in store.load(1).values())
    cnn = build(store, "identity").parameter_counts()
    assert cnn["frozen"] == 0
    adapters = 8 * 64 + 64 + 64 * 8 + 8
    assert build(store).parameter_counts() == {"trained": cnn["trained"] + adapters, "frozen": layer}
    assert build(store, training="full").parameter_counts() == {
        "trained": cnn["trained"] + adapters + layer,
        "frozen": 0,
    }


def test_gradients_reach_the_encoder_through_the_frozen_layer(store: LayerStore) -> None:
    model = build(store)
    coarsest = model.encoder(torch.randn(2, 1, 16, 16))[-1]
    model.bottleneck(coarsest).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.encoder.stages[-1].parameters())


def test_three_dimensions(store: LayerStore) -> None:
    model = build(store, dims=3)
    logits = model(torch.randn(2, 1, 8, 16, 12))
    assert logits.shape == (2, 3, 8, 16, 12)
    logits.sum().backward()


def test_channels_last_changes_nothing_but_the_layout(store: LayerStore) -> None:
    model, x = build(store).eval(), torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        expected = model(x)
        flat = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(flat, expected, atol=1e-5)


def test_bfloat16_autocast_gives_nearly_the_same(store: LayerStore) -> None:
    model, x = build(store).eval(), torch.randn(2, 1, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = model(x)
    with torch.no_grad():
        exact = model(x)
    assert mixed.isfinite().all()
    assert (mixed.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_begins_as_a_trained_cnn_behind_a_gate(store: LayerStore) -> None:
    trained, warm = build(store, "identity", seed=1), build(store, seed=2, residual="gate")
    images = torch.randn(2, 1, 32, 32)
    assert not torch.equal(trained.eval()(images), warm.eval()(images))
    warm.load_cnn(trained.trainable_state_dict())
    assert torch.equal(trained(images), warm(images))
