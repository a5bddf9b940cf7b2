"""Volumes stored as small blocks, each of which is pages of the disk with all that a patch needs of it.

In a plain array a patch's voxels are spread over lines of the whole volume, and the system reads whole pages: several
times the patch. A volume's tiles are bytes (blocks along each axis, bytes of a block); a block has the image and the
labels of its voxels, see `block_type`.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from llm4seg.data.readahead import read_ahead

if TYPE_CHECKING:  # torch is needed by no stage before training
    from torch import Tensor

PAGE = 4096  # bytes, the least that a system reads
LEAST_VOXELS = 512  # of a block, which is a page where they fit into one
PATCH = (64, 64, 32)  # voxels of the patch that blocks are made for: most have fewer slices than rows


def block_edges(shape: Sequence[int], voxel_bytes: int) -> tuple[int, ...]:
    """The sides of a volume's blocks: those with the smallest product of what a patch of the size PATCH reads and what
    the volume takes on the disk.

    Along an axis, `length` voxels that lie anywhere touch (length + edge - 1) / edge blocks on average; a volume that
    is no longer is read whole.
    """
    voxels = _pages(LEAST_VOXELS * voxel_bytes) // voxel_bytes
    rows, columns, slices = shape
    best, least = (1, 1, 1), math.inf
    for row in range(1, min(voxels, rows) + 1):
        for column in range(1, min(voxels // row, columns) + 1):
            edges = row, column, min(voxels // (row * column), slices)
            cost = 1.0
            for side, length, edge in zip(shape, PATCH, edges, strict=True):
                blocks = -(-side // edge)
                touched = blocks if side <= length else (length + edge - 1) / edge
                cost *= touched * blocks * edge
            if cost < least:
                best, least = edges, cost
    return best


def block_type(channels: int, dtype: str, edges: Sequence[int]) -> np.dtype[Any]:
    """A block: its `image` (C, *edges) and after it its `labels` (*edges), filled up with zeros to whole pages."""
    image = np.dtype((dtype, (channels, *edges)))
    labels = np.dtype((np.uint8, tuple(edges)))
    return np.dtype(
        {
            "names": ["image", "labels"],
            "formats": [image, labels],
            "offsets": [0, image.itemsize],
            "itemsize": _pages(image.itemsize + labels.itemsize),
        }
    )


def to_tiles(image_CS: np.ndarray, labels_S: np.ndarray, block: np.dtype[Any]) -> np.ndarray:
    """The tiles of a volume (C, *shape) and its labels (*shape), the last blocks filled up with zeros."""
    edges = block["labels"].shape
    counts = [-(-side // edge) for side, edge in zip(labels_S.shape, edges, strict=True)]
    over = [(0, count * edge - side) for side, count, edge in zip(labels_S.shape, counts, edges, strict=True)]
    split = [part for pair in zip(counts, edges, strict=True) for part in pair]
    blocks = np.zeros(counts, block)
    blocks["labels"] = np.pad(labels_S, over).reshape(split).transpose(0, 2, 4, 1, 3, 5)
    for channel, image_S in enumerate(image_CS):
        blocks["image"][:, :, :, channel] = np.pad(image_S, over).reshape(split).transpose(0, 2, 4, 1, 3, 5)
    return blocks.view(np.uint8).reshape(*counts, block.itemsize)


def read_box(
    tiles: "Tensor", block: np.dtype[Any], start: Sequence[int], stop: Sequence[int]
) -> "tuple[Tensor, Tensor]":
    """The voxels from `start` to `stop` of a volume, (C, *box), and their labels (*box).

    Only the blocks that hold some are read.
    """
    import torch

    edges = block["labels"].shape
    first = [low // edge for low, edge in zip(start, edges, strict=True)]
    last = [-(-high // edge) for high, edge in zip(stop, edges, strict=True)]
    stored = tiles.numpy()
    read_ahead(stored, _runs(stored.shape, first, last))
    rows, columns, slices = map(slice, first, last)
    blocks = stored.view(block)[rows, columns, slices, 0]
    sides = [count * edge for count, edge in zip(blocks.shape, edges, strict=True)]
    inside = tuple(
        slice(low - begin * edge, high - begin * edge)
        for low, high, begin, edge in zip(start, stop, first, edges, strict=True)
    )
    # NumPy brings blocks into lines twice as fast as torch
    image = blocks["image"].transpose(3, 0, 4, 1, 5, 2, 6).reshape(-1, *sides)[(slice(None), *inside)]
    labels = blocks["labels"].transpose(0, 3, 1, 4, 2, 5).reshape(sides)[inside]
    return torch.from_numpy(image), torch.from_numpy(labels)


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _runs(shape: Sequence[int], first: Sequence[int], last: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where the bytes of a box lie in tiles of this shape: first and last of each run of neighboring blocks."""
    _, columns, slices, block_bytes = shape
    for row, column in product(range(first[0], last[0]), range(first[1], last[1])):
        line = (row * columns + column) * slices
        yield (line + first[2]) * block_bytes, (line + last[2]) * block_bytes
