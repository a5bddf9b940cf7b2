"""Resampling of volumes to another shape, one channel or label at a time: at most a few volumes are in memory.

Voxels are areas, so corners do not align: as torch's interpolation without align_corners.
"""

from collections.abc import Sequence

import numpy as np

from llm4seg.datasets.spacing import Box


def resample_image(image_CS: np.ndarray, size: Sequence[int], across: int | None) -> np.ndarray:
    """(C, *shape) to (C, *size) in the image's type, integers rounded: linear, smoothed along axes that shrink.

    Along the axis `across`, the nearest slice is taken.
    """
    from scipy import ndimage

    storable = image_CS.dtype if image_CS.dtype.kind in "iu" else np.dtype(np.float32)
    result = np.empty((len(image_CS), *size), storable)
    shrink = np.array(image_CS.shape[1:]) / size
    sigma = np.maximum(0, (shrink - 1) / 2)
    if across is not None:
        sigma[across] = 0
    for channel, values in enumerate(image_CS):
        smooth = values.astype(np.float32)
        if sigma.any():
            ndimage.gaussian_filter(smooth, sigma, mode="nearest", output=smooth)  # in place: line after line
        sampled = _linear(smooth, size, across)
        result[channel] = np.rint(sampled, out=sampled) if storable.kind != "f" else sampled
    return result


def resample_labels(labels_S: np.ndarray, size: Sequence[int], across: int | None) -> np.ndarray:
    """(*shape) to (*size): where each label lies is interpolated linearly, and the label with the most is taken.

    Of several with equally much, the smallest label. Nearest along the axis `across`.
    """
    most_S, result_S = np.zeros(size, np.float32), np.zeros(size, np.uint8)
    for label in np.unique(labels_S):
        box = _reach(labels_S == label, size)
        share = _linear((labels_S == label).astype(np.float32), size, across, box)
        inside = tuple(slice(low, high) for low, high in box)
        more = share > most_S[inside]
        np.copyto(most_S[inside], share, where=more)
        np.copyto(result_S[inside], label, where=more)
    return result_S


def _reach(mask_S: np.ndarray, size: Sequence[int]) -> Box:
    """The part of the grid of `size` that a mask can be interpolated into."""
    box = []
    for axis, side in enumerate(size):
        hits = np.flatnonzero(mask_S.any(tuple(other for other in range(mask_S.ndim) if other != axis)))
        low, high, _ = _neighbors(mask_S.shape[axis], side, nearest=False)
        inside = np.flatnonzero((high >= hits[0]) & (low <= hits[-1]))
        # where a grid is so coarse that it passes over a mask, the place next to it
        first = int(inside[0]) if len(inside) else min(int(hits[0]) * side // mask_S.shape[axis], side - 1)
        box.append((first, int(inside[-1]) + 1 if len(inside) else first + 1))
    return tuple(box)


def _linear(values_S: np.ndarray, size: Sequence[int], across: int | None, box: Box | None = None) -> np.ndarray:
    """Linear interpolation of float32 values to `size`, or to a box of that grid; nearest along the axis `across`."""
    # axes that shrink most come first, so that what is left to do is small
    for axis in sorted(range(values_S.ndim), key=lambda axis: size[axis] / values_S.shape[axis]):
        low, high, weight = _neighbors(values_S.shape[axis], size[axis], nearest=axis == across)
        if box is not None:
            part = slice(*box[axis])
            low, high, weight = low[part], high[part], weight[part]
        if np.array_equal(low, np.arange(values_S.shape[axis])) and not weight.any():
            continue
        below = np.take(values_S, low, axis)
        if weight.any():
            step = np.take(values_S, high, axis)
            step -= below
            step *= weight.reshape([-1 if k == axis else 1 for k in range(values_S.ndim)])
            below += step
        values_S = below
    return values_S


def _neighbors(length: int, size: int, nearest: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `size` places along an axis of `length` voxels: the voxels on both sides, and the upper's weight.

    `nearest`: of two equally near the upper one, as in SimpleITK, SciPy and torch, for images and labels alike. Where
    slices become coarser by 2 or 4 times, predictions lie half a slice of the original too low; neither the mean of
    both slices nor a way back that knows which was taken gives balls a higher Dice after the grid and back.
    """
    place = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
    if nearest:
        closest = np.minimum(np.floor(place + 0.5).astype(np.int64), length - 1)
        return closest, closest, np.zeros(size, np.float32)
    low = np.floor(place).astype(np.int64)
    return low, np.minimum(low + 1, length - 1), (place - low).astype(np.float32)
