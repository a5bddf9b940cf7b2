"""Resampling of volumes to another shape, in slabs: beside a volume and its result only a little memory is used.

Voxels are areas, so corners do not align: as torch's interpolation without align_corners. A voxel of the result is
computed by the same operations whatever slab it is in.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llm4seg.datasets.spacing import Box

SLAB = 2**21  # voxels that are in single precision at once
RADIUS = 4.0  # standard deviations at which SciPy cuts a Gaussian off


@dataclass(frozen=True)
class Places:
    """Places of a grid along one axis: the voxels on both sides of each, and the upper's weight, (size,).

    `weight` is None where every place is a voxel.
    """

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray | None

    def part(self, start: int, stop: int, offset: int) -> "Places":
        """The places from `start` to `stop`, among the voxels from `offset` on."""
        weight = None if self.weight is None else self.weight[start:stop]
        return Places(self.low[start:stop] - offset, self.high[start:stop] - offset, weight)


@dataclass(frozen=True)
class Slab:
    """A part of a grid, the voxels that it is made of, and the grid's places among these voxels."""

    on_grid: tuple[slice, ...]
    voxels: tuple[slice, ...]
    places: list[Places]


def resample_image(image_CS: np.ndarray, size: Sequence[int], across: int | None) -> np.ndarray:
    """(C, *shape) to (C, *size) in the image's type, integers rounded: linear, smoothed along axes that shrink.

    Along the axis `across`, the nearest slice is taken.
    """
    from scipy import ndimage

    storable = image_CS.dtype if image_CS.dtype.kind in "iu" else np.dtype(np.float32)
    result = np.empty((len(image_CS), *size), storable)
    shape = image_CS.shape[1:]
    sigma = np.maximum(0, (np.array(shape) / size - 1) / 2)
    if across is not None:
        sigma[across] = 0
    axis = len(size) - 1 - int(np.argmin(sigma[::-1]))  # of those that are smoothed least, the last
    margins = (RADIUS * sigma + 0.5).astype(int).tolist()
    everything = tuple((0, side) for side in size)
    for channel, values in enumerate(image_CS):
        for slab in _slabs(shape, size, across, everything, axis, margins):
            smooth = values[slab.voxels].astype(np.float32)
            if sigma.any():
                # in place: line after line
                ndimage.gaussian_filter(smooth, sigma, mode="nearest", output=smooth, truncate=RADIUS)
            sampled = _linear(smooth, slab.places, _order(shape, size))
            result[channel][slab.on_grid] = np.rint(sampled, out=sampled) if storable.kind != "f" else sampled
    return result


def resample_labels(labels_S: np.ndarray, size: Sequence[int], across: int | None) -> np.ndarray:
    """(*shape) to (*size): where each label lies is interpolated linearly, and the label with the most is taken.

    Of several with equally much, the smallest label. Nearest along the axis `across`.
    """
    most_S, result_S = np.zeros(size, np.float32), np.zeros(size, np.uint8)
    shape, order = labels_S.shape, _order(labels_S.shape, size)
    for label, box in _boxes(labels_S):
        reach = _reach(box, shape, size, across)
        for slab in _slabs(shape, size, across, reach, len(size) - 1, [0] * len(size)):
            share = _linear((labels_S[slab.voxels] == label).astype(np.float32), slab.places, order)
            more = share > most_S[slab.on_grid]
            np.copyto(most_S[slab.on_grid], share, where=more)
            np.copyto(result_S[slab.on_grid], label, where=more)
    return result_S


def _boxes(labels_S: np.ndarray) -> Iterator[tuple[int, Box]]:
    """Each label that occurs, in ascending order, with a box around it."""
    from scipy import ndimage

    if not labels_S.min():
        yield 0, tuple((0, side) for side in labels_S.shape)
    for label, box in enumerate(ndimage.find_objects(labels_S), start=1):
        if box is not None:
            yield label, tuple((part.start, part.stop) for part in box)


def _reach(box: Box, shape: Sequence[int], size: Sequence[int], across: int | None) -> Box:
    """The part of a grid of `size` that voxels in a box are interpolated to; empty where the grid passes over them."""
    reach = []
    for (start, stop), places in zip(box, _places(shape, size, across), strict=True):
        inside = np.flatnonzero((places.high >= start) & (places.low < stop))
        reach.append((int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0))
    return tuple(reach)


def _slabs(
    shape: Sequence[int], size: Sequence[int], across: int | None, box: Box, axis: int, margins: Sequence[int]
) -> Iterator[Slab]:
    """A box of a grid of `size`, in slabs of about SLAB voxels along an axis, with `margins` more voxels on both sides.

    Slabs are at least twice as thick as both margins together.
    """
    if any(start == stop for start, stop in box):
        return
    grid = _places(shape, size, across)
    layer = math.prod(side for k, side in enumerate(shape) if k != axis)
    step = max(1, max(SLAB // layer, 4 * margins[axis]) * size[axis] // shape[axis])
    for first in range(*box[axis], step):
        part = [*box]
        part[axis] = (first, min(first + step, box[axis][1]))
        voxels, places = [], []
        for along, margin, side, (start, stop) in zip(grid, margins, shape, part, strict=True):
            begin = max(0, int(along.low[start]) - margin)
            voxels.append(slice(begin, min(side, int(along.high[stop - 1]) + 1 + margin)))
            places.append(along.part(start, stop, begin))
        yield Slab(tuple(slice(start, stop) for start, stop in part), tuple(voxels), places)


def _order(shape: Sequence[int], size: Sequence[int]) -> list[int]:
    """The axes that shrink most come first, so that what is left to do is small."""
    return sorted(range(len(size)), key=lambda axis: size[axis] / shape[axis])


def _linear(values_S: np.ndarray, places: Sequence[Places], order: Sequence[int]) -> np.ndarray:
    """Linear interpolation of float32 values at places along each axis, axis after axis."""
    for axis in order:
        low, high, weight = places[axis].low, places[axis].high, places[axis].weight
        if weight is None and np.array_equal(low, np.arange(values_S.shape[axis])):
            continue
        below = np.take(values_S, low, axis)
        if weight is not None:
            step = np.take(values_S, high, axis)
            step -= below
            step *= weight.reshape([-1 if k == axis else 1 for k in range(values_S.ndim)])
            below += step
        values_S = below
    return values_S


def _places(shape: Sequence[int], size: Sequence[int], across: int | None) -> list[Places]:
    """The places of a grid of `size` along each axis of a volume; along the axis `across` the nearest voxels."""
    return [_along(*sides, nearest=axis == across) for axis, sides in enumerate(zip(shape, size, strict=True))]


def _along(length: int, size: int, nearest: bool) -> Places:
    """For each of `size` places along an axis of `length` voxels: the voxels on both sides, and the upper's weight.

    `nearest`: of two equally near the upper one, as in SimpleITK, SciPy and torch, for images and labels alike. Where
    slices become coarser by 2 or 4 times, predictions lie half a slice of the original too low; neither the mean of
    both slices nor a way back that knows which was taken gives balls a higher Dice after the grid and back.
    """
    place = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
    if nearest:
        closest = np.minimum(np.floor(place + 0.5).astype(np.int64), length - 1)
        return Places(closest, closest, None)
    low = np.floor(place).astype(np.int64)
    weight = (place - low).astype(np.float32)
    return Places(low, np.minimum(low + 1, length - 1), weight if weight.any() else None)
