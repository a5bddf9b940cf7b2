"""Less or worse training data: a fraction of the training part, and label noise in its masks.

Random numbers are seeded with (seed, case), never with a worker's random state, so that they are the same on every
worker and in every epoch.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm4seg.config.schema import LabelNoise
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.data.prepared import Prepared

Labels = NDArray[np.uint8]


def subsample(cases: Sequence[str], data: Prepared, fraction: float, seed: int) -> tuple[str, ...]:
    """A random fraction of `cases`, at least one case, in their order: whole patients, the last perhaps in part; of a
    single patient, cases.

    A smaller fraction is a subset of every larger fraction under the same seed.
    """
    groups = {case: data.cases[case].group for case in cases}
    units = groups if len(set(groups.values())) > 1 else {case: case for case in cases}
    shuffled = sorted(cases, key=lambda case: (_random(seed, units[case]).random(), units[case], case))
    kept = set(shuffled[: max(1, math.ceil(fraction * len(cases) - 1e-9))])
    return tuple(case for case in cases if case in kept)


def corrupt_labels(labels_S: Tensor, case: str, scheme: LabelScheme, section: LabelNoise, seed: int) -> Tensor:
    """A case's labels with label noise; a copy, unless the section has all noise off. What is ignored stays so."""
    if not (section.boundary or section.drop or section.flip):
        return labels_S
    random, labels, classes = _random(seed, case), labels_S.numpy().copy(), scheme.labels
    if section.boundary:
        labels = _moved(labels, classes, section.boundary, random)
    if section.drop:
        labels = _dropped(labels, classes, section.drop, random)
    if section.flip:
        labels = _flipped(labels, classes, section.flip, random)
    labels[labels_S.numpy() == IGNORE] = IGNORE
    return torch.from_numpy(labels)


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])


def _moved(labels: Labels, classes: int, most: int, random: np.random.Generator) -> Labels:
    """Boundary noise: each class grown into the background or shrunk, by 0 to `most` pixels."""
    from scipy.ndimage import binary_dilation, binary_erosion

    moved = labels.copy()
    for label in range(1, classes + 1):
        mask, by = labels == label, int(random.integers(-most, most + 1))
        if by > 0:
            moved[binary_dilation(mask, iterations=by) & (moved == 0)] = label
        elif by < 0:
            moved[mask & ~binary_erosion(mask, iterations=-by)] = 0
    return moved


def _dropped(labels: Labels, classes: int, chance: float, random: np.random.Generator) -> Labels:
    """Missing structures: each connected component of a class made background with probability `chance`."""
    from scipy.ndimage import label as connected_components

    for label in range(1, classes + 1):
        components, count = connected_components(labels == label)
        dropped = 1 + np.flatnonzero(random.random(count) < chance)
        labels[np.isin(components, dropped)] = 0
    return labels


def _flipped(labels: Labels, classes: int, chance: float, random: np.random.Generator) -> Labels:
    """Pixel noise: each pixel gets one of the other labels, all as likely, with probability `chance`."""
    by = random.integers(1, classes + 1, labels.shape)
    wrong = ((labels + by) % (classes + 1)).astype(labels.dtype)
    return np.where(random.random(labels.shape) < chance, wrong, labels)
