"""`resample`: arrays from one grid to another of the same field of view."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resample(values_NCS: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear interpolation to another spatial shape; pixels are areas, so corners do not align."""
    return functional.interpolate(values_NCS, tuple(shape), mode=LINEAR[len(shape)], align_corners=False)
