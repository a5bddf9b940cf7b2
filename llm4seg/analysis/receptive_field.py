"""The effective receptive field of the central position of a feature map (Luo et al., NeurIPS 2016)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

SHARES = (0.5, 0.95)


def receptive_field(
    function: Callable[[Tensor], Tensor], images: Iterable[Tensor], shares: Sequence[float] = SHARES
) -> dict[float, float]:
    """The side in pixels of the smallest centered square (cube) that holds each share of the contributions.

    `function`: from an image (C, *S) to a feature map (D, *grid), differentiable; `images`: of one size, over whose
    contributions the mean is taken (as in RepLKNet, Ding et al., CVPR 2022).
    """
    total_S, grid = torch.zeros(()), None
    for image_CS in images:
        contribution_S, grid = contributions(function, image_CS)
        total_S = total_S + contribution_S
    assert grid is not None, "at least one image"
    return sides(total_S, central_pixel(grid, total_S.shape), shares)


def contributions(function: Callable[[Tensor], Tensor], image_CS: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """|d sum_c y_c(center) / d x| summed over the image's channels: float64 (*S), and the grid of y."""
    image_CS = image_CS.detach().clone().requires_grad_()
    with torch.enable_grad():
        features_DG = function(image_CS)
        grid = tuple(features_DG.shape[1:])
        center = int(np.ravel_multi_index([side // 2 for side in grid], grid))
        (gradient_CS,) = torch.autograd.grad(features_DG.flatten(1)[:, center].sum(), image_CS)
    return gradient_CS.abs().double().sum(0).cpu(), grid


def central_pixel(grid: Sequence[int], size: Sequence[int]) -> list[float]:
    """The middle of the central cell of a grid over an image, in pixels from the middle of the first pixel."""
    return [(cells // 2 + 0.5) * side / cells - 0.5 for cells, side in zip(grid, size, strict=True)]


def sides(contributions_S: Tensor, center: Sequence[float], shares: Sequence[float] = SHARES) -> dict[float, float]:
    """The side in pixels of the smallest square (cube) around a center that holds each share of the contributions.

    A pixel belongs to it when its middle does; a square may reach beyond the image, where there is nothing. NaN without
    any contribution.
    """
    axes = [
        torch.arange(side, dtype=torch.float64) - middle
        for side, middle in zip(contributions_S.shape, center, strict=True)
    ]
    distances = torch.stack(torch.meshgrid(*axes, indexing="ij")).abs().amax(0).reshape(-1).numpy()
    radii, index = np.unique(distances, return_inverse=True)
    mass = np.bincount(index, weights=contributions_S.reshape(-1).double().numpy()).cumsum()
    if mass[-1] == 0:
        return dict.fromkeys(shares, float("nan"))
    found = np.searchsorted(mass / mass[-1], [share - 1e-9 for share in shares])  # sums are rounded
    return {share: float(2 * radii[place] + 1) for share, place in zip(shares, found, strict=True)}
