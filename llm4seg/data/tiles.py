"""Volumes stored as small blocks, each of which lies in one piece on the disk, so that a patch is read alone.

In a plain array a patch's voxels are spread over lines of the whole volume, and the system reads whole pages: several
times the patch. A shard's tiles are (C, blocks along each axis, voxels of a block along each axis).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from llm4seg.data.readahead import read_ahead

if TYPE_CHECKING:  # torch is needed by no stage before training
    from torch import Tensor

EDGE = 16  # voxels along a block's axis, at most: two pages of 16-bit values


def block_edges(shape: Sequence[int]) -> tuple[int, ...]:
    """The sides of equal blocks that cover a volume with as little around it as may be."""
    return tuple(-(-side // -(-side // EDGE)) for side in shape)


def to_tiles(array_CS: np.ndarray) -> np.ndarray:
    """The tiles of a volume (C, *shape), its last blocks filled up with zeros."""
    channels, *shape = array_CS.shape
    edges = block_edges(shape)
    over = [-side % edge for side, edge in zip(shape, edges, strict=True)]
    padded = np.pad(array_CS, [(0, 0), *((0, more) for more in over)])
    split = [part for side, edge in zip(padded.shape[1:], edges, strict=True) for part in (side // edge, edge)]
    return np.ascontiguousarray(padded.reshape(channels, *split).transpose(0, 1, 3, 5, 2, 4, 6))


def read_box(tiles: "Tensor", start: Sequence[int], stop: Sequence[int]) -> "Tensor":
    """The voxels from `start` to `stop` of a volume, (C, *box): only the blocks that hold some are read."""
    import torch

    edges = tiles.shape[4:]
    first = [low // edge for low, edge in zip(start, edges, strict=True)]
    last = [-(-high // edge) for high, edge in zip(stop, edges, strict=True)]
    read_ahead(tiles.numpy(), _runs(tiles.shape, first, last, tiles.element_size()))
    # NumPy brings blocks into lines twice as fast as torch
    blocks = tiles.numpy()[(slice(None), *map(slice, first, last))].transpose(0, 1, 4, 2, 5, 3, 6)
    whole = blocks.reshape(len(tiles), *(blocks.shape[k] * blocks.shape[k + 1] for k in (1, 3, 5)))
    inside = [
        slice(low - begin * edge, high - begin * edge)
        for low, high, begin, edge in zip(start, stop, first, edges, strict=True)
    ]
    return torch.from_numpy(whole[(slice(None), *inside)])


def _runs(
    shape: Sequence[int], first: Sequence[int], last: Sequence[int], element_size: int
) -> Iterator[tuple[int, int]]:
    """Where the bytes of a box lie in tiles of this shape: first and last of each run of neighboring blocks."""
    channels, rows, columns, slices, *edges = shape
    block = math.prod(edges) * element_size
    for channel, row, column in product(range(channels), range(first[0], last[0]), range(first[1], last[1])):
        line = ((channel * rows + row) * columns + column) * slices
        yield (line + first[2]) * block, (line + last[2]) * block
