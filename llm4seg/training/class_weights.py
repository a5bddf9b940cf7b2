"""Weights of the classes in the loss, given or by the frequency of their pixels."""

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from llm4seg.config.schema import Training
from llm4seg.data.intensity import VolumeGrid
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.utils.errors import InputError


def class_weights(
    section: Training, scheme: LabelScheme, pixels: Iterable[Tensor], device: torch.device
) -> Tensor | None:
    """The weights of `training.class_weights`, float32 (K,), background first; None where there are none.

    `pixels`: of each case of this worker's share of the training part, counts of labels, see `count_labels`; they are
    iterated for `auto` alone. Raises InputError where the weights are not as many as the classes, and for regions,
    which have no background.
    """
    setting = section.class_weights
    if setting is None:
        return None
    if scheme.regions:
        found = setting if isinstance(setting, str) else [*setting]
        raise InputError(f"training.class_weights: found {found}, allowed for regions, a sigmoid each: null")
    names = ("background", *scheme.classes)
    if setting == "auto":
        counts = sum(pixels, torch.zeros(IGNORE + 1, dtype=torch.int64)).to(device)
        dist.all_reduce(counts)
        return balanced(counts[: len(names)])
    if len(setting) != len(names):
        raise InputError(
            f"training.class_weights: found {len(setting)} numbers, allowed: {len(names)}, of {', '.join(names)}"
        )
    return torch.tensor(setting, device=device)


def balanced(counts_K: Tensor) -> Tensor:
    """Inverse frequencies, float32 (K,): all pixels / (classes that occur x pixels of the class), 0 for a class that
    does not occur. The mean weight of a pixel is 1; scikit-learn's `balanced`.
    """
    pixels_K = counts_K.double()
    occurs_K = counts_K > 0
    weights_K = pixels_K.sum() / (occurs_K.sum() * pixels_K)
    return torch.where(occurs_K, weights_K, 0.0).float()


def count_labels(labels_S: Tensor) -> Tensor:
    """The number of pixels of every label, int64 (IGNORE + 1,)."""
    return torch.bincount(labels_S.flatten(), minlength=IGNORE + 1)


def counted_labels(grid: VolumeGrid) -> Tensor:
    """The same of a volume without ignored voxels, as `prepare` counted them: nothing is read."""
    counts = torch.zeros(IGNORE + 1, dtype=torch.int64)
    for label, count in grid.voxels.items():
        counts[label] = count
    counts[0] = math.prod(grid.shape) - counts.sum()
    return counts
