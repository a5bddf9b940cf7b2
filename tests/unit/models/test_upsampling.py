"""Upsampling by 2 without atomics is torch's own: forward to the bit, its gradient to rounding."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from llm4seg.models.upsampling import DeterministicUpsampling, UpsampleByTwo, contributions, convert_upsampling

MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}
SHAPES = ((2, 5, 7), (2, 5, 8, 12), (2, 3, 5, 7), (1, 3, 4, 6, 8), (1, 2, 3, 5, 1), (2, 3, 1, 4))


def both(shape: tuple[int, ...], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Output and gradient of ours and of torch's, for the same numbers."""
    torch.manual_seed(0)
    values, found = torch.randn(shape).to(dtype), []
    weights = torch.randn(*shape[:2], *(2 * side for side in shape[2:])).to(dtype)
    for upsample in (
        DeterministicUpsampling.apply,
        lambda x: functional.interpolate(x, scale_factor=2, mode=MODES[x.ndim], align_corners=False),
    ):
        features = values.clone().requires_grad_()
        out = upsample(features)
        out.backward(weights)
        assert features.grad is not None
        found.append((out.detach(), features.grad))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    (out, gradient), (expected, expected_gradient) = both(shape, dtype)
    assert torch.equal(out, expected)
    assert out.dtype == gradient.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 2**-7
    assert torch.allclose(gradient, expected_gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(2, 2, 5), (2, 2, 3, 4), (1, 2, 2, 3, 4)], ids=str)
def test_its_gradient_is_that_of_its_output(shape: tuple[int, ...]) -> None:
    features = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(DeterministicUpsampling.apply, (features,))


def test_after_a_layer_in_bfloat16_under_autocast() -> None:
    conv, images = nn.Conv2d(1, 3, 3, padding=1), torch.randn(1, 1, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        out = DeterministicUpsampling.apply(conv(images))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert conv.weight.grad is not None
    # each pixel's four or more weights are 4 in all, as an upsampled image has four times the pixels
    assert conv.bias is not None
    assert conv.bias.grad is not None
    assert torch.equal(conv.bias.grad, torch.full((3,), 4.0 * 5 * 7))


def test_its_weights_are_made_once() -> None:
    of = (3, 2, torch.float32, torch.device("cpu"))
    assert contributions(*of) is contributions(*of)
    assert float(contributions(*of)[0].sum()) == 4


def test_only_upsampling_of_this_kind_is_replaced() -> None:
    ours = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    others = [
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=4, mode="bilinear"),
        nn.Upsample(scale_factor=(2, 3), mode="bilinear"),
        nn.Upsample(size=(8, 8), mode="bilinear"),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.UpsamplingBilinear2d(scale_factor=2),
    ]
    model = nn.Sequential(nn.Sequential(ours, nn.Upsample(scale_factor=(2.0, 2.0, 2.0), mode="trilinear")), *others)
    convert_upsampling(model)
    inner = model[0]
    assert isinstance(inner, nn.Sequential)
    assert [type(module) for module in inner] == [UpsampleByTwo, UpsampleByTwo]
    assert list(model)[1:] == others
    images = torch.randn(1, 2, 3, 5)
    assert torch.equal(inner[0](images), ours(images))
