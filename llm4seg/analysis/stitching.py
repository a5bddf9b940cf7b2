"""A linear map from one set of features to another, by ridge regression: what a layer leaves to be read off it."""

import torch
from torch import Tensor, nn

PENALTIES = tuple(10.0**exponent for exponent in range(-8, 3))  # relative to a standardized entry's variance


def stitch(source_TE: Tensor, target_TD: Tensor) -> nn.Linear:
    """The linear layer E -> D of ridge regression on standardized sources, as in model stitching (Bansal et al. 2021).

    The penalty, one for all outputs, is that of the smallest generalized cross-validation error (Golub et al. 1979):
    squared error / (1 - degrees of freedom / T)^2.
    """
    source, target = source_TE.double(), target_TD.double()
    tokens, middle, aim = len(source), source.mean(0), target.mean(0)
    deviation = source.std(0, correction=0)
    scale = torch.where(deviation > 1e-9 * deviation.max(), deviation, torch.inf)  # a constant entry has no weight
    standard = (source - middle) / scale
    values, vectors = torch.linalg.eigh(standard.T @ standard / tokens)
    values, cross = values.clamp(min=0), vectors.T @ (standard.T @ (target - aim)) / tokens
    explained = cross.square().sum(1)
    spread = float((target - aim).square().sum() / tokens)
    errors = []
    for penalty in PENALTIES:
        shrunk = values + penalty
        error = spread - float((explained * (values + 2 * penalty) / shrunk.square()).sum())
        freedom = float((values / shrunk).sum()) + 1
        errors.append(error / max(1 - freedom / tokens, 1e-9) ** 2)
    best = PENALTIES[errors.index(min(errors))]
    weight_ED = vectors @ (cross / (values + best)[:, None]) / scale[:, None]
    layer = nn.Linear(source.shape[1], target.shape[1]).to(target_TD)
    with torch.no_grad():
        layer.weight.copy_(weight_ED.T)
        layer.bias.copy_(aim - middle @ weight_ED)
    return layer


def explained_variance(predicted_TD: Tensor, target_TD: Tensor) -> float:
    """The share of the target's variance over tokens, of all features together, that a prediction explains (R^2)."""
    target = target_TD.double()
    wrong = (target - predicted_TD.detach().double()).square().sum()
    return float(1 - wrong / (target - target.mean(0)).square().sum())
