"""`model.dynunet.strides: auto`: the axes that each step from a level to the next halves, by nnU-Net's rule.

Axes are halved together with the finest one, so that coarse slices wait until pixels are as coarse; feature maps keep
at least SMALLEST positions along each axis.
"""

from collections.abc import Sequence
from math import ceil, prod

SMALLEST = 4  # positions along an axis
RATIO = 2  # of spacings: an axis as much coarser than the finest one waits
Strides = Sequence[Sequence[int]]  # of each step, along each axis


def pooling_strides(spacing: Sequence[float], size: Sequence[float], most: int) -> list[list[int]]:
    """At most `most` steps, of 1 or 2 along each axis, for patches of a size in voxels at a spacing in mm.

    Each step compares the axes with room to be halved, and halves the finest of them and those less than RATIO times
    as coarse. An axis that would be halved alone needs 3 SMALLEST positions, else 2 SMALLEST.
    """
    lengths, sides, steps = list(spacing), list(size), list[list[int]]()
    while len(steps) < most:
        roomy = [axis for axis, side in enumerate(sides) if side >= 2 * SMALLEST]
        halved = [axis for axis in roomy if lengths[axis] / min(lengths[one] for one in roomy) < RATIO]
        if not halved or (len(halved) == 1 and sides[halved[0]] < 3 * SMALLEST):
            break
        for axis in halved:
            lengths[axis], sides[axis] = 2 * lengths[axis], ceil(sides[axis] / 2)
        steps.append([2 if axis in halved else 1 for axis in range(len(size))])
    return steps


def kernel_axes(spacing: Sequence[float], steps: Strides) -> list[list[bool]]:
    """For each level, one more than steps: along which axes its kernels extend.

    From the level on whose spacing along an axis is less than RATIO times that along the finest one, and at the
    coarsest level along each.
    """
    lengths, extends, levels = list(spacing), [False] * len(spacing), list[list[bool]]()
    for step in steps:
        extends = [before or length / min(lengths) < RATIO for before, length in zip(extends, lengths, strict=True)]
        levels.append(extends)
        lengths = [length * factor for length, factor in zip(lengths, step, strict=True)]
    return [*levels, [True] * len(spacing)]


def token_sides(steps: Strides, pool: int, dims: int) -> list[int]:
    """Input voxels that a token stands for along each axis: `pool` positions of the coarsest feature map."""
    return [pool * prod(step[axis] for step in steps) for axis in range(dims)]
