"""`training.patch.size: auto` and strides that are `auto`: for the volumes of the prepared data, by nnU-Net's rules.

The size is bounded by memory and by the tokens that the block takes. It goes by the geometry of all volumes, as
`data.spacing: auto` does: every fold and every arm of a study sees patches of one size. It reads no labels.
"""

from collections.abc import Callable, Sequence
from math import ceil, prod
from operator import floordiv
from typing import Any

import numpy as np

from llm4seg.config import Config
from llm4seg.config.schema.backbone import each_axis
from llm4seg.config.schema.backbones import DynUNet
from llm4seg.data.pooling import Strides, kernel_axes, pooling_strides, token_sides
from llm4seg.data.prepared import Prepared
from llm4seg.utils.errors import InputError

LARGEST = 256**3  # voxels that the rule begins with
MOST = 128**3  # voxels: nnU-Net's reference of 8 GB of GPU memory ends near that
FEWEST = 3  # levels of MONAI's DynUNet
StepsFor = Callable[[Sequence[float]], Strides]  # the network's strides for patches of a size


def resolve_auto(config: Config, data: Prepared) -> Config:
    """The config with the size of patches and the network's strides for these data, where they are `auto`; else the
    same one.

    Raises InputError where they do not go with other parameters.
    """
    spacing, network, given = data.spacing, config.model.chosen, config.training.patch.size
    if config.known_size or spacing is None:
        return config

    def steps_for(size: Sequence[float]) -> Strides:
        if isinstance(network, DynUNet) and network.strides == "auto":
            return pooling_strides(spacing, size, len(network.filters) - 1)
        return [network.axis_strides(len(spacing))]

    changes: dict[str, Any] = {}
    if given == "auto":
        shapes = [case.on_grid.shape for case in data.cases.values()]
        median = [float(side) for side in np.median(shapes, axis=0)]
        llm = config.model.llm  # without a block, too, so that arms with and without one see the same patches
        changes["training.patch.size"], steps = patch_size(spacing, median, steps_for, llm.pool, llm.max_tokens)
    else:
        steps = steps_for(given)
    if isinstance(network, DynUNet) and network.strides == "auto":
        changes |= _levels(network, spacing, steps)
    return config.override(changes, where=f"{', '.join(config.automatic)}: auto for these volumes")


def patch_size(
    spacing: Sequence[float],
    median: Sequence[float],
    steps_for: StepsFor,
    pool: int,
    max_tokens: int,
) -> tuple[list[int], Strides]:
    """Sides of a patch in voxels, multiples of what a token stands for along each axis, and the network's steps for it.

    As many mm along each axis and LARGEST voxels, cut to the volumes' median shape, rounded up. While there are more
    voxels than MOST, or more tokens than allowed, the axis that is longest beside the median gets its next shorter
    length. `pool`: the network's coarsest positions in a token, along each axis.
    """
    unit = (LARGEST * prod(spacing)) ** (1 / 3)  # mm
    wanted = [min(unit / length, side) for length, side in zip(spacing, median, strict=True)]
    while True:
        steps = steps_for(wanted)
        token, sides = _padded(wanted, steps, pool)
        if prod(sides) <= MOST and prod(map(floordiv, sides, token)) <= max_tokens:
            return sides, steps
        shares = [
            side / whole if side > least else 0.0 for side, least, whole in zip(sides, token, median, strict=True)
        ]
        if not any(shares):  # a token alone
            return sides, steps
        axis = int(np.argmax(shares))
        wanted[axis] = _shorter(wanted, axis, sides[axis], steps_for, pool)


def _shorter(wanted: list[float], axis: int, side: int, steps_for: StepsFor, pool: int) -> int:
    """The longest length along an axis of which patches are shorter than `side` there."""
    for length in range(ceil(wanted[axis]) - 1, 0, -1):
        size = [*wanted[:axis], length, *wanted[axis + 1 :]]
        if _padded(size, steps_for(size), pool)[1][axis] < side:
            return length
    raise AssertionError("a length of 1 is a token's, which is shorter")


def _padded(size: Sequence[float], steps: Strides, pool: int) -> tuple[list[int], list[int]]:
    """The sides of a token, and a size rounded up to whole tokens, along each axis."""
    token = token_sides(steps, pool, len(size))
    return token, [least * max(1, ceil(round(side / least, 6))) for side, least in zip(size, token, strict=True)]


def _levels(section: DynUNet, spacing: Sequence[float], steps: Strides) -> dict[str, Any]:
    """Overrides with the strides found, the levels that they leave, and kernels of 1 along axes that wait."""
    levels = len(steps) + 1
    if levels < FEWEST:
        raise InputError(
            f"model.dynunet.strides: found auto, but volumes this small leave {levels} levels of the network, "
            f"allowed: at least {FEWEST}; set model.dynunet.strides to null, or to those of each step"
        )
    kernels = [
        [kernel if extends else 1 for kernel, extends in zip(each_axis(kernels, len(spacing)), axes, strict=True)]
        for kernels, axes in zip(section.kernels, kernel_axes(spacing, steps), strict=False)
    ]
    values = {"strides": [*steps], "filters": section.filters[:levels], "kernels": kernels}
    return {f"model.dynunet.{name}": value for name, value in values.items()}
