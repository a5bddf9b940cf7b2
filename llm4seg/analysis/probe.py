"""A linear probe: how well a linear function of one token tells whether it lies in a mask.

Ridge regression of +1 (in the mask) and -1 (outside) on standardized tokens, both classes with equal weight in all:
in the means and deviations that standardize, in the fit, and in the choice of the penalty. All of it follows from each
class's count, sum and sum of outer products, kept for each fold, so memory does not grow with the number of tokens.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FOLDS = 5
PENALTIES = tuple(10.0**exponent for exponent in range(-6, 4))  # relative to a standardized entry's variance


def deal_folds(groups: Iterable[Hashable], folds: int = FOLDS) -> dict[Hashable, int]:
    """A fold for each distinct group (a patient, a block of slices), dealt in order of first appearance.

    At most `folds` of them. Raises ValueError with fewer than two groups, which cannot choose a penalty.
    """
    distinct = [*dict.fromkeys(groups)]
    if len(distinct) < 2:
        raise ValueError(f"groups: found {len(distinct)}, allowed: 2 or more")
    return {group: number % folds for number, group in enumerate(distinct)}


class Moments:
    """Counts, sums and sums of outer products of tokens, outside (0) and in (1) the mask, by fold."""

    def __init__(self, width: int, folds: int = FOLDS) -> None:
        self.counts = np.zeros((folds, 2))
        self.sums = np.zeros((folds, 2, width))
        self.outer = np.zeros((folds, 2, width, width))
        self.offset: np.ndarray | None = None  # the first image's mean token: far from zero, squares would lose digits

    def add(self, tokens_TD: Tensor, mask_T: Tensor, fold: int) -> None:
        """Add an image's tokens, with the mask on their grid."""
        tokens = tokens_TD.detach().cpu().double().numpy()
        if self.offset is None:
            self.offset = tokens.mean(0)
        inside = mask_T.cpu().reshape(-1).bool().numpy()
        for label, chosen in enumerate((~inside, inside)):
            part = tokens[chosen] - self.offset
            self.counts[fold, label] += len(part)
            self.sums[fold, label] += part.sum(0)
            self.outer[fold, label] += part.T @ part

    def testable_folds(self) -> list[int]:
        """The folds that can be left out: with tokens of both classes, as the others together have."""
        others = self.counts.sum(0) - self.counts
        return [fold for fold in range(len(others)) if self.counts[fold].all() and others[fold].all()]


@dataclass(frozen=True)
class Probe:
    """A fitted probe: a token's score is weight (D,) · token + bias, in the mask above 0. `penalty`: the chosen one."""

    weight: np.ndarray
    bias: float
    penalty: float

    def scores(self, tokens_TD: Tensor) -> Tensor:
        """The scores of tokens: float64 (T,)."""
        return tokens_TD.detach().cpu().double() @ torch.from_numpy(self.weight) + self.bias

    def __call__(self, tokens_TD: Tensor) -> Tensor:
        """Whether each token is predicted to be in the mask: bool (T,)."""
        return self.scores(tokens_TD) > 0


def fit_probe(moments: Moments) -> Probe:
    """Fit a probe, with the penalty of the smallest squared error on left-out folds, classes weighted equally.

    Only folds with tokens of both classes are left out, and only if the others have both, too. Raises ValueError where
    a class has no token, or no fold can be left out.
    """
    counts = moments.counts.sum(0)
    if not counts.all():
        raise ValueError(f"mask: found {counts[1]:.0f} tokens inside and {counts[0]:.0f} outside, allowed: 1 or more")
    errors = [_errors(moments, fold) for fold in moments.testable_folds()]
    if not errors:
        raise ValueError("folds: found none that can be left out with tokens inside and outside the mask")
    total = np.sum(errors, axis=0)
    best = len(PENALTIES) - 1 - int(np.argmin(total[::-1]))  # of equal ones the largest
    weights_PD, biases_P = _fit(moments.counts.sum(0), moments.sums.sum(0), moments.outer.sum(0))
    weight_D = weights_PD[best]
    assert moments.offset is not None
    return Probe(weight_D, float(biases_P[best] - weight_D @ moments.offset), PENALTIES[best])


def _fit(counts: np.ndarray, sums: np.ndarray, outer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights (P, D) and biases (P,) of all penalties, of moments of both classes."""
    means = sums / counts[:, None]
    middle = means.mean(0)
    covariance = (outer / counts[:, None, None]).mean(0) - np.outer(middle, middle)
    deviation = np.sqrt(np.clip(np.diagonal(covariance), 0, None))
    scale = np.where(deviation > 1e-9 * deviation.max(initial=0), deviation, np.inf)  # a constant entry has no weight
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    target = vectors.T @ ((means[1] - means[0]) / 2 / scale)  # the covariance with +1 and -1, whose mean is 0
    weights = [vectors @ (target / (np.clip(values, 0, None) + penalty)) / scale for penalty in PENALTIES]
    return np.array(weights), -np.array(weights) @ middle


def _errors(moments: Moments, fold: int) -> np.ndarray:
    """The squared errors (P,) on a fold, of probes fitted on the others: mean over each class, then over both."""
    rest = [one.sum(0) - one[fold] for one in (moments.counts, moments.sums, moments.outer)]
    weights_PD, biases_P = _fit(*rest)
    errors = np.zeros(len(PENALTIES))
    for label, wanted in enumerate((-1.0, 1.0)):
        count, offsets = moments.counts[fold, label], biases_P - wanted
        squares = np.einsum("pd,de,pe->p", weights_PD, moments.outer[fold, label] / count, weights_PD, optimize=True)
        errors += (squares + 2 * offsets * (weights_PD @ (moments.sums[fold, label] / count)) + offsets**2) / 2
    return errors


def balanced_accuracy(predicted_T: Tensor, mask_T: Tensor) -> float:
    """The mean of the shares of tokens that are right inside and outside the mask; 0.5 is chance, NaN without either.

    Concatenate the tokens of all test images first: the mean of images would be another number.
    """
    predicted, inside = predicted_T.cpu().reshape(-1).bool(), mask_T.cpu().reshape(-1).bool()
    return float((predicted[inside].double().mean() + (~predicted[~inside]).double().mean()) / 2)
