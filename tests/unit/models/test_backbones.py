"""The libraries' networks taken apart: the same numbers as whole, the block in the bottleneck, nothing unused."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid, build_model
from llm4seg.training.engines.common import prepare
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT
from tests.tiny_llm import block_section, tiny_store

SMALL: dict[str, dict[str, Any]] = {
    "cmunext": {"dims": [4, 6, 8], "depths": [1, 1, 1], "kernels": [3, 3, 3]},
    "unet": {"channels": [4, 6, 8], "residual_units": 2},
    "attention-unet": {"channels": [4, 6, 8]},
    "unet++": {"features": [4, 6, 8, 10, 12, 5]},
    "segresnet": {"filters": 8, "blocks_down": [1, 2, 1], "blocks_up": [1, 2]},
    "dynunet": {"filters": [4, 6, 8], "kernels": [3, 5, 3], "strides": None, "residual": True},
    "unetr": {"feature_size": 2, "hidden_size": 12, "mlp_size": 16, "heads": 3},
    "swin-unetr": {"feature_size": 12, "depths": [1, 2, 1, 1], "heads": [3, 6, 12, 24], "window": 4},
}
COARSEST = {  # channels and stride of the coarsest map
    "cmunext": (8, 4),
    "unet": (8, 4),
    "attention-unet": (8, 4),
    "unet++": (12, 16),
    "segresnet": (32, 4),
    "dynunet": (8, 4),
    "unetr": (12, 16),
    "swin-unetr": (192, 32),
}
MONAI = [name for name in SMALL if name != "cmunext"]
in_2d_and_3d = pytest.mark.parametrize("dims", [2, 3])


def whole(name: str, dims: int) -> nn.Module:
    """MONAI's own network, written out as its users would."""
    from monai.networks import nets

    heads = (3, 6, 12, 24)
    networks: dict[str, Callable[[], nn.Module]] = {
        "unet": lambda: nets.UNet(dims, 2, 3, channels=(4, 6, 8), strides=(2, 2), num_res_units=2),
        "attention-unet": lambda: nets.AttentionUnet(dims, 2, 3, channels=(4, 6, 8), strides=(2, 2)),
        "unet++": lambda: nets.BasicUNetPlusPlus(dims, 2, 3, features=(4, 6, 8, 10, 12, 5)),
        "segresnet": lambda: nets.SegResNet(dims, 8, 2, 3, blocks_down=(1, 2, 1), blocks_up=(1, 2)),
        "dynunet": lambda: nets.DynUNet(dims, 2, 3, (3, 5, 3), (1, 2, 2), (2, 2), filters=(4, 6, 8), res_block=True),
        "unetr": lambda: nets.UNETR(2, 3, size(name, dims), 2, 12, 16, 3, spatial_dims=dims),
        "swin-unetr": lambda: nets.SwinUNETR(2, 3, 2, (1, 2, 1, 1), heads, 4, feature_size=12, spatial_dims=dims),
    }
    torch.manual_seed(0)
    return networks[name]()


def size(name: str, dims: int) -> tuple[int, ...]:
    """As small as the network takes it: two positions at the coarsest level."""
    stride = COARSEST[name][1]
    return (*[stride] * (dims - 1), 2 * stride)


def images(name: str, dims: int, channels: int = 2) -> Tensor:
    return torch.randn(2, channels, *size(name, dims), generator=torch.Generator().manual_seed(0))


def build(
    name: str,
    dims: int,
    store: LayerStore | None = None,
    channels: int = 2,
    grid: Sequence[int] = (),
    network: dict[str, Any] | None = None,
) -> Hybrid:
    """A small network, alone or with a tiny LLM's layer in its bottleneck."""
    values = Config.load(ROOT / "params.yaml").model.model_dump()
    field = name.replace("+", "_plus").replace("-", "_")
    changes = {"backbone": name, field: network or SMALL[name], "bottleneck": "llm" if store else "identity"}
    section = Model.model_validate(values | changes | {"llm": block_section().model_dump()})
    torch.manual_seed(0)
    numbers = {"in_channels": channels, "out_channels": 3, "seed": 0}
    return build_model(section, store, spatial_dims=dims, size=tuple(grid) or size(name, dims), **numbers)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return tiny_store(tmp_path_factory.mktemp("llm"))


@in_2d_and_3d
@pytest.mark.parametrize("name", MONAI)
def test_with_nothing_in_the_bottleneck_it_is_monais_own_network(name: str, dims: int) -> None:
    """From one seed, so the network's weights are also drawn before anything else's."""
    ours, monais, x = build(name, dims), whole(name, dims), images(name, dims)
    for training in (True, False):  # the first moves BatchNorm's statistics
        expected = monais.train(training)(x)
        assert torch.equal(ours.train(training)(x), expected[0] if isinstance(expected, list) else expected)


def test_strides_and_kernels_by_axis_are_monais() -> None:
    """Written with numbers and lists; the coarsest map is as coarse as the product of the strides."""
    from monai.networks import nets

    by_axis = {"filters": [4, 6, 8], "kernels": [[3, 3, 1], 5, 3], "strides": [[2, 2, 1], 2], "residual": True}
    torch.manual_seed(0)
    kernels, strides = [[3, 3, 1], [5] * 3, [3] * 3], [[2, 2, 1], [2, 2, 2]]
    monais = nets.DynUNet(3, 2, 3, kernels, [[1] * 3, *strides], strides, filters=(4, 6, 8), res_block=True)
    ours, x = build("dynunet", 3, network=by_axis), torch.randn(2, 2, 8, 12, 6)
    assert torch.equal(ours(x), monais(x))
    assert ours.strides == (4, 4, 2)
    assert ours.encoder(x)[-1].shape == (2, 8, 2, 3, 3)
    with pytest.raises(InputError, match=r"image size: found \[8, 12, 5\], allowed: multiples of \[4, 4, 2\]"):
        ours(torch.randn(2, 2, 8, 12, 5))


@in_2d_and_3d
@pytest.mark.parametrize("name", SMALL)
def test_the_bottleneck_replaces_the_coarsest_map(name: str, dims: int, store: LayerStore) -> None:
    model, x, seen = build(name, dims, store).eval(), images(name, dims), list[Tensor]()
    model.bottleneck.register_forward_hook(lambda module, inputs, out: seen.extend([inputs[0], out]))
    logits = model(x)
    channels, stride = COARSEST[name]
    assert model.strides == (stride,) * dims
    assert seen[0].shape == seen[1].shape == (2, channels, *[1] * (dims - 1), 2)
    *skips, coarsest = model.encoder(x)
    assert torch.equal(seen[0], coarsest)
    assert torch.equal(logits, model.decoder([*skips, seen[1]]))
    assert logits.shape == (2, 3, *size(name, dims))


@in_2d_and_3d
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("group")
def test_gradients_reach_every_trained_parameter(name: str, dims: int, store: LayerStore) -> None:
    """DistributedDataParallel stops at the second step if one was missed in the first."""
    model = build(name, dims, store).train()
    parallel = DistributedDataParallel(model)
    for _ in range(2):
        parallel(images(name, dims)).square().mean().backward()
    frozen = {f"bottleneck.core.layers.0.{tensor}" for tensor in store.load(1)}
    reached = {parameter for parameter, value in model.named_parameters() if value.grad is not None}
    assert reached == {parameter for parameter, _ in model.named_parameters()} - frozen


@in_2d_and_3d
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("batch_size", "longer"), [(1, 1), (2, 1), (1, 2)])
def test_the_config_refuses_just_what_leaves_a_norm_one_value(
    name: str, dims: int, batch_size: int, longer: int
) -> None:
    stride = COARSEST[name][1]
    grid = [*[stride] * (dims - 1), longer * stride]
    sizes = {"data.spatial_dims": dims, "data.size": grid, "training.batch_size": batch_size}
    field = name.replace("+", "_plus").replace("-", "_")
    network = {f"model.{field}.{parameter}": value for parameter, value in SMALL[name].items()}
    others = {"model.backbone": name, "model.bottleneck": "identity", "training.augment.flip": []}
    with suppress(InputError):
        Config.load(ROOT / "params.yaml").override(sizes | network | others)
        build(name, dims, channels=1, grid=grid).train()(torch.randn(batch_size, 1, *grid))
        return
    with pytest.raises(ValueError, match="Expected more than 1"):
        build(name, dims, channels=1, grid=grid).train()(torch.randn(batch_size, 1, *grid))


@pytest.mark.parametrize("name", SMALL)
def test_no_parameter_has_two_names(name: str) -> None:
    model = build(name, 2)
    named = list(model.named_parameters(remove_duplicate=False))
    assert len(named) == len(list(model.parameters()))
    assert {parameter.split(".")[0] for parameter, _ in named} == {"encoder", "decoder"}


@pytest.mark.parametrize("name", SMALL)
def test_sizes_that_the_stride_does_not_divide_are_refused(name: str) -> None:
    model, stride = build(name, 2), COARSEST[name][1]
    with pytest.raises(InputError, match=rf"image size: found .*, allowed: multiples of {stride} on every side"):
        model(torch.randn(1, 2, stride, 2 * stride + stride // 2))


def test_unetr_refuses_images_of_another_size() -> None:
    with pytest.raises(InputError, match=r"image size: found \[32, 32\], allowed: \[16, 32\]"):
        build("unetr", 2)(torch.randn(1, 2, 32, 32))


@pytest.mark.parametrize("name", SMALL)
def test_images_come_in_channels_last(name: str) -> None:
    """Also those of one channel, which count as being in either layout; and nothing but the layout changes."""
    model, x, seen = build(name, 2, channels=1).eval(), images(name, 2, channels=1), list[Tensor]()
    expected = model(x)
    prepare(model, Config.load(ROOT / "params.yaml").override({"engine.channels_last": True}).engine, x.device)
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, out: seen.append(out))
    assert torch.allclose(model(x), expected, atol=1e-5)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert seen[0].shape[1] > 1


@pytest.mark.parametrize("name", ["cmunext", "segresnet"])
def test_a_volume_trains_with_the_block_in_the_bottleneck(name: str, store: LayerStore) -> None:
    """One step moves every trained weight and lowers the loss; the LLM's layer stays."""
    model, x = build(name, 3, store).train(), images(name, 3)
    before = {parameter: value.detach().clone() for parameter, value in model.named_parameters()}
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-4)
    losses = []
    for _ in range(2):
        losses.append(model(x).sub(1).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[1] < losses[0]
    for parameter, value in model.named_parameters():
        assert torch.equal(value, before[parameter]) != value.requires_grad, parameter


def test_the_default_network_waits_for_no_library() -> None:
    """`import monai` takes ten seconds."""
    program = """
import sys
from pathlib import Path
from llm4seg.config import Config
from llm4seg.models import build_model
section = Config.load(Path("params.yaml")).override({"model.bottleneck": "identity"}).model
build_model(section, None, spatial_dims=2, in_channels=1, out_channels=2, seed=0)
print({"monai", "segmentation_models_pytorch"} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
