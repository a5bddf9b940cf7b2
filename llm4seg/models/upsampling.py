"""Linear upsampling by 2 on a GPU, whose gradient is summed in a fixed order.

torch's own backward pass adds up by atomics, in any order. Under deterministic algorithms it takes the forward pass
apart into some twenty operations instead, and sorts indices in the backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}  # by the number of axes of a tensor (N, C, *S)
UPSAMPLE: dict[int, Callable[..., Tensor]] = {
    3: torch.ops.aten.upsample_linear1d.vec,
    4: torch.ops.aten.upsample_bilinear2d.vec,
    5: torch.ops.aten.upsample_trilinear3d.vec,
}
CONV: dict[int, Callable[..., Tensor]] = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
# along an axis, an input pixel contributes to four output pixels; at the border, where these repeat it, to one more
CONTRIBUTIONS = (0.25, 0.75, 0.75, 0.25)
WEIGHTS: dict[tuple[int, int, torch.dtype, torch.device], Tensor] = {}


def upsample_by_two(features_NCS: Tensor) -> Tensor:
    """Linear upsampling by 2 along all axes without aligned corners: torch's `interpolate`, to the bit."""
    if features_NCS.is_cpu:
        mode = MODES[features_NCS.ndim]
        return functional.interpolate(features_NCS, scale_factor=2, mode=mode, align_corners=False)
    out: Tensor = DeterministicUpsampling.apply(features_NCS)
    return out


class DeterministicUpsampling(torch.autograd.Function):
    """torch's kernel forward, which reads; backward a strided depth-wise convolution, which reads, too."""

    @staticmethod
    def forward(ctx: Any, features_NCS: Tensor) -> Tensor:
        return UPSAMPLE[features_NCS.ndim](features_NCS, None, False, [2.0] * (features_NCS.ndim - 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NCS: Tensor) -> Tensor:
        axes, channels = gradient_NCS.ndim - 2, gradient_NCS.shape[1]
        padded_NCS = functional.pad(gradient_NCS, [1] * (2 * axes), mode="replicate")
        weights = contributions(channels, axes, gradient_NCS.dtype, gradient_NCS.device)
        return CONV[gradient_NCS.ndim](padded_NCS, weights, stride=2, groups=channels)


def contributions(channels: int, axes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The weights (C, 1, 4, ...) of the backward pass, made once: a copy from the host would stop each step."""
    key = channels, axes, dtype, device
    if key in WEIGHTS:
        return WEIGHTS[key]
    line = torch.tensor(CONTRIBUTIONS, dtype=dtype, device=device)
    weights = line
    for _ in range(axes - 1):
        weights = weights[..., None] * line
    weights = weights.expand(channels, 1, *[4] * axes).contiguous()
    if type(weights) is Tensor and not torch.compiler.is_compiling():  # no fake one, which a later training would find
        WEIGHTS[key] = weights
    return weights


class UpsampleByTwo(nn.Upsample):
    """`nn.Upsample` for a linear mode, a factor of 2 and corners that are not aligned."""

    def forward(self, features_NCS: Tensor) -> Tensor:
        return upsample_by_two(features_NCS)


def convert_upsampling(model: nn.Module) -> None:
    """Replace every `nn.Upsample` of a model that UpsampleByTwo can stand for, in place; it has no weights."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if type(module) is nn.Upsample and _by_two(module):
                setattr(parent, name, UpsampleByTwo(None, 2, module.mode, align_corners=False))


def _by_two(module: nn.Upsample) -> bool:
    factor = module.scale_factor
    factors = set(factor) if isinstance(factor, tuple) else {factor}
    return module.mode in MODES.values() and module.size is None and factors == {2} and not module.align_corners
