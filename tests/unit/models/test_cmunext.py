"""CMUNeXt against its specification."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from llm4seg.config import Config
from llm4seg.models import Hybrid, build_model
from llm4seg.models.backbones.cmunext import Encoder, decoder
from llm4seg.tools.profile_model import count_flops
from llm4seg.tools.torch_internals import FakeTensorMode
from llm4seg.utils.errors import InputError
from tests.tiny_llm import model_section

PARAMS = Path(__file__).parents[3] / "params.yaml"


def preset(name: str) -> Hybrid:
    section = Config.load(PARAMS).preset(name).override({"model.bottleneck": "identity"}).model
    return build_model(section, None, spatial_dims=2, in_channels=3, out_channels=1, seed=0)


@pytest.mark.parametrize(("name", "millions"), [("cmunext-s", 0.418), ("cmunext", 3.149), ("cmunext-l", 8.287)])
def test_sizes_of_the_family(name: str, millions: float) -> None:
    """The published network has 3.15 M parameters (paper.md)."""
    assert preset(name).parameter_counts()["trained"] / 1e6 == pytest.approx(millions, abs=5e-4)


def test_operations_of_the_published_network() -> None:
    """7.41 GFLOPs at 256 x 256 (paper.md), as the tool thop counts: a multiply-add once, four operations for each value
    that a BatchNorm gives and eleven for each that is interpolated."""
    model, others = preset("cmunext"), []

    def count(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        others.append(out.numel() * (4 if isinstance(module, nn.BatchNorm2d) else 11))

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Upsample):
            module.register_forward_hook(count)
    with FakeTensorMode(allow_non_fake_inputs=True):  # shapes alone
        multiply_adds = count_flops(model, (1, 3, 256, 256)) / 2
    assert multiply_adds / 1e9 == pytest.approx(7.23, abs=0.005)
    assert (multiply_adds + sum(others)) / 1e9 == pytest.approx(7.41, abs=0.01)


@pytest.mark.parametrize("size", [(16, 16), (24, 8), (16, 8, 24)])
def test_logits_have_the_images_grid(size: tuple[int, ...]) -> None:
    model = build_model(model_section("identity"), None, spatial_dims=len(size), in_channels=2, out_channels=5, seed=0)
    assert model(torch.randn(2, 2, *size)).shape == (2, 5, *size)


def test_feature_maps_halve_from_stage_to_stage() -> None:
    encoder = Encoder(3, 1, dims=(4, 6, 8), depths=(1, 1, 1), kernels=(3, 3, 5))
    features = encoder(torch.randn(1, 1, 8, 16, 24))
    assert [tuple(feature.shape[1:]) for feature in features] == [(4, 8, 16, 24), (6, 4, 8, 12), (8, 2, 4, 6)]


def test_3d_computes_as_2d_on_a_volume_that_is_the_same_in_every_plane() -> None:
    """With kernels that only look within a plane, a volume of equal planes gives equal planes of the 2-D result."""
    flat, deep = decoder(2, (4, 6), 2).eval(), decoder(3, (4, 6), 2).eval()
    state = {}
    for name, tensor in flat.state_dict().items():
        planes = torch.zeros(*tensor.shape[:2], tensor.shape[-1], *tensor.shape[2:]) if tensor.ndim == 4 else tensor
        if tensor.ndim == 4:
            planes[:, :, tensor.shape[-1] // 2] = tensor
        state[name] = planes
    deep.load_state_dict(state)
    fine, coarse = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)
    with torch.no_grad():
        flat_logits = flat([fine, coarse])
        logits = deep([fine[:, :, None].expand(-1, -1, 8, -1, -1), coarse[:, :, None].expand(-1, -1, 4, -1, -1)])
    assert torch.allclose(logits, flat_logits[:, :, None].expand_as(logits), atol=1e-5)


@pytest.mark.parametrize("size", [(18, 16), (16, 10), (16, 16, 6)])
def test_image_size_that_the_stride_does_not_divide(size: tuple[int, ...]) -> None:
    model = build_model(model_section("identity"), None, spatial_dims=len(size), in_channels=1, out_channels=2, seed=0)
    with pytest.raises(
        InputError, match=r"image size: found \[.*\], allowed: multiples of 4 on every side \(model\.backbone\)"
    ):
        model(torch.randn(1, 1, *size))
