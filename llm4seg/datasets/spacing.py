"""The grid of a volume: cropped to what is no empty margin, at a spacing that all volumes share.

Arrays are (rows, columns, slices), and so are shapes and spacings here.
"""

from collections.abc import Sequence

import numpy as np

ANISOTROPIC = 3.0  # times the other spacings: where an axis counts as the one across slices
Box = tuple[tuple[int, int], ...]


def in_array_order(spacing: Sequence[float]) -> tuple[float, ...]:
    """`data.spacing`, which is to the right, to the back and to the head, along rows, columns and slices."""
    x, y, z = (float(step) for step in spacing)
    return (y, x, z)


def in_config_order(spacing: Sequence[float]) -> list[float]:
    """The inverse of `in_array_order`."""
    rows, columns, slices = spacing
    return [columns, rows, slices]


def crop_box(image_CS: np.ndarray) -> Box:
    """The smallest box with every voxel above its channel's minimum; all of a constant image.

    Of an MRI it is what is not zero, of a CT the body with its table, without constant padding. The image alone
    decides, since a new image comes without labels.
    """
    inside_S: np.ndarray = np.zeros(image_CS.shape[1:], dtype=bool)
    for channel_S in image_CS:
        inside_S |= channel_S > channel_S.min()
    axes = range(inside_S.ndim)
    if not inside_S.any():
        return tuple((0, side) for side in inside_S.shape)
    hits = [np.flatnonzero(inside_S.any(tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple((int(hit[0]), int(hit[-1]) + 1) for hit in hits)


def sides(box: Box) -> tuple[int, ...]:
    """The voxels of a box along each axis."""
    return tuple(high - low for low, high in box)


def target_spacing(spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """nnU-Net's rule: the median of the volumes' spacings along each axis; across coarse slices, finer than that.

    An axis is that of coarse slices where its median spacing is more than ANISOTROPIC times the others', and the median
    of the volumes' `shapes` as many times smaller than the others'. There it is the 10th percentile, but above the
    others.
    """
    target, median = np.median(spacings, axis=0), np.median(shapes, axis=0)
    coarse = int(target.argmax())
    finest = float(np.delete(target, coarse).max())
    few = median[coarse] * ANISOTROPIC < np.delete(median, coarse).min()
    if target[coarse] > ANISOTROPIC * finest and few:
        tenth = float(np.percentile(np.asarray(spacings)[:, coarse], 10))
        target[coarse] = tenth if tenth >= finest else finest + 1e-5
    return tuple(round(float(value), 6) for value in target)


def grid_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """The voxels along each axis once `spacing` has become `target`; at least one."""
    return tuple(max(1, round(side * old / new)) for side, old, new in zip(shape, spacing, target, strict=True))


def across_slices(spacing: Sequence[float], target: Sequence[float]) -> int | None:
    """The axis along which nothing is interpolated, as slices lie far apart there: in the volume, else on the grid.

    Where it is more than ANISOTROPIC times as coarse as each other axis. None: no such axis.
    """
    for each in (spacing, target):
        coarse = int(np.argmax(each))
        if each[coarse] > ANISOTROPIC * max(np.delete(each, coarse)):
            return coarse
    return None
