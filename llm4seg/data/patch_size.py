"""`training.patch.size: auto`: a size of patches for the volumes of the prepared data, by nnU-Net's rule.

The rule is bounded by memory and by the tokens that the block takes. It goes by the geometry of all volumes, as
`data.spacing: auto` does: every fold and every arm of a study sees patches of one size. It reads no labels.
"""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared

LARGEST = 256**3  # voxels that the rule begins with
MOST = 128**3  # voxels: nnU-Net's reference of 8 GB of GPU memory ends near that


def with_patch_size(config: Config, data: Prepared) -> Config:
    """The config with the size of patches of these data, where it is `auto`; else the same one.

    Raises InputError where that size does not go with other parameters.
    """
    if config.known_size or data.spacing is None:
        return config
    shapes = [case.on_grid.shape for case in data.cases.values()]
    llm = config.model.llm  # without a block, too, so that arms with and without one see the same patches
    step = config.model.stride * llm.pool
    median = [float(side) for side in np.median(shapes, axis=0)]
    size = patch_size(data.spacing, median, step, llm.max_tokens)
    return config.override({"training.patch.size": size}, where="training.patch.size: auto for these volumes")


def patch_size(spacing: Sequence[float], median: Sequence[float], step: int, max_tokens: int) -> list[int]:
    """Sides of a patch in voxels, multiples of `step`: the voxels that a token stands for along each axis.

    As many mm along each axis and LARGEST voxels, cut to the volumes' median shape, rounded up. While there are more
    voxels than MOST, or more tokens than allowed, the axis that is longest beside the median becomes a step shorter.
    """
    unit = (LARGEST * prod(spacing)) ** (1 / 3)  # mm
    wanted = [min(unit / length, side) for length, side in zip(spacing, median, strict=True)]
    sides = [step * max(1, ceil(round(side / step, 6))) for side in wanted]
    while prod(sides) > MOST or prod(side // step for side in sides) > max_tokens:
        shares = [side / whole if side > step else 0.0 for side, whole in zip(sides, median, strict=True)]
        if not any(shares):
            break  # a token alone
        sides[int(np.argmax(shares))] -= step
    return sides
