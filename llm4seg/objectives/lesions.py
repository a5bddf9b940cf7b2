"""Lesions of a mask as connected components: how many there are, are found, and are false.

A lesion is a connected component of a class's pixels under full connectivity: 8 neighbors in 2-D, 26 in 3-D. A
reference lesion is found where one of its pixels or more is predicted, and a predicted component is false where none of
its pixels is the reference's: any overlap, as in the challenges on white matter hyperintensities (Kuijf et al., IEEE
TMI 2019), on multiple sclerosis (Carass et al., NeuroImage 2017) and autoPET.
"""

import numpy as np
from torch import Tensor

COUNTS = ("lesions", "predicted_lesions", "found_lesions", "false_lesions")


def lesion_counts(predicted_S: Tensor, reference_S: Tensor) -> dict[str, int]:
    """COUNTS of two boolean masks on the CPU: lesions of the reference and of the prediction, and of these, those found
    and those false. One prediction over two lesions finds both.
    """
    predicted, reference = predicted_S.numpy(), reference_S.numpy()
    box = bounding_box(predicted | reference)
    lesions, found = _counts(reference[box], predicted[box])
    predicted_lesions, true = _counts(predicted[box], reference[box])
    return {
        "lesions": lesions,
        "predicted_lesions": predicted_lesions,
        "found_lesions": found,
        "false_lesions": predicted_lesions - true,
    }


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The number from 1 on of the connected component that each pixel of a mask is in, 0 outside; and how many."""
    from scipy.ndimage import label

    numbers, count = label(mask, np.ones((3,) * mask.ndim))
    return numbers, count


def _counts(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """The number of connected components of a mask, and of those that overlap with another mask."""
    numbers, count = components(mask)
    return count, len(np.unique(numbers[mask & other]))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask, an empty one of an empty mask: components are numbered in int32, which of a whole
    volume takes four times the memory of its mask.
    """
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0))
    return tuple(box)
