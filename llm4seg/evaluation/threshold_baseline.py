"""The threshold baseline: for each class the interval of intensity with the best Dice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm4seg.data.label_scheme import IGNORE, foreground
from llm4seg.data.prepared import Prepared

BINS = 64
SAMPLE = 20_000  # labeled pixels per case from which the bins' edges are computed; the counts are of all pixels


@dataclass(frozen=True)
class Interval:
    """Low <= normalized intensity < high; infinite where a side does not matter."""

    low: float
    high: float

    def mask(self, image_S: Tensor) -> Tensor:
        """The pixels inside, bool (*S)."""
        return (image_S >= self.low) & (image_S < self.high)


def fit_intervals(data: Prepared, case_ids: Sequence[str]) -> list[Interval]:
    """For each class the interval of the first channel with the best Dice over all pixels of these cases.

    Exact over BINS bins, whose edges are quantiles of the labeled pixels' intensities: every interval of bins is
    tried. Classes are fitted one by one and may overlap, which flatters the baseline.
    """
    edges = bin_edges(data, case_ids)
    labels, bins = IGNORE + 1, len(edges) - 1
    counts = np.zeros((labels, bins), dtype=np.int64)
    for case_id in case_ids:
        image_CS, labels_S = data.resampled(case_id)
        bin_of_pixel = np.searchsorted(edges, image_CS[0].numpy().ravel(), side="right") - 1
        pairs = labels_S.numpy().ravel().astype(np.int64) * bins + bin_of_pixel
        counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
    total, classes = counts[:IGNORE].sum(axis=0), range(len(data.classes))
    return [best_interval(counts[[*data.scheme.covered(place)]].sum(axis=0), total, edges) for place in classes]


def bin_edges(data: Prepared, case_ids: Sequence[str]) -> NDArray[np.float32]:
    """Ascending edges from -inf to inf around quantiles of the labeled pixels' intensities."""
    pixels = []
    for case_id in case_ids:
        image_CS, labels_S = data.resampled(case_id)
        labeled = image_CS[0][foreground(labels_S)]
        pixels.append(labeled[:: math.ceil(len(labeled) / SAMPLE) or 1])
    values = torch.cat(pixels).numpy()
    inner = np.unique(np.quantile(values, np.linspace(0, 1, BINS - 1))) if len(values) else values
    return np.array([-math.inf, *inner, math.inf], dtype=np.float32)


def best_interval(inside: NDArray[np.int64], total: NDArray[np.int64], edges: NDArray[np.float32]) -> Interval:
    """The interval of bins with the best Dice, from the class's and all pixels' counts in each bin."""
    tp = _sums_between(inside)
    dice = 2 * tp / np.maximum(_sums_between(total) + inside.sum(), 1)
    start, stop = np.unravel_index(np.argmax(np.triu(dice, 1)), dice.shape)
    return Interval(float(edges[start]), float(edges[stop]))


def _sums_between(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[i, j]: the sum of counts[i:j]."""
    until = np.concatenate([[0], np.cumsum(counts)])
    return until[None, :] - until[:, None]
