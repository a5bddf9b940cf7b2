"""Masks and activation maps on the token grid, as in LM4VisualEncoding (Pang et al., ICLR 2024, appendix A)."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Kind = Literal["magnitude", "norm", "frequency"]
POOLING: dict[int, Callable[..., Tensor]] = {2: functional.adaptive_avg_pool2d, 3: functional.adaptive_avg_pool3d}
TINY = 1e-12  # a span of values below this share of their scale is of rounding


def token_mask(mask_S: Tensor, grid: Sequence[int]) -> Tensor:
    """The cells of a token grid of which at least half is in a mask: bool (*grid), of a bool mask in 2-D or 3-D.

    The sides of the grid need not divide those of the mask; cells then overlap, as in adaptive average pooling.
    """
    shares = POOLING[mask_S.ndim](mask_S[None, None].double(), tuple(grid))
    return shares[0, 0] >= 0.5


def activation(tokens_TD: Tensor, kind: Kind = "magnitude") -> Tensor:
    """The activation of each token, scaled to [0, 1] over the image's tokens: float64 (T,); zeros where all are equal.

    `magnitude`: the distance from the mean token; `norm`: the token's norm; `frequency`: the distance of the phases of
    the token's Fourier transform over its entries, from their mean over tokens.
    """
    tokens_TD = tokens_TD.double()
    scale = float(tokens_TD.norm(dim=1).max())
    match kind:
        case "magnitude":
            values_T = (tokens_TD - tokens_TD.mean(0)).norm(dim=1)
        case "norm":
            values_T = tokens_TD.norm(dim=1)
        case "frequency":
            phases_TD = torch.fft.fft(tokens_TD, dim=1).angle()
            values_T = (phases_TD - phases_TD.mean(0)).norm(dim=1)
            scale = math.pi * tokens_TD.shape[1] ** 0.5
    low, span = values_T.min(), float(values_T.max() - values_T.min())
    return (values_T - low) / span if span > TINY * scale else torch.zeros_like(values_T)
