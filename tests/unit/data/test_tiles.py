"""Volumes in tiles: what goes in comes out, and a patch's bytes are read alone."""

import math

import numpy as np
import pytest
import torch

from llm4seg.data.tiles import EDGE, block_edges, read_box, to_tiles

SHAPES = [(1, 40, 20), (33, 16, 17), (96, 50, 7), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_any_box_is_read_as_it_was(shape: tuple[int, ...], dtype: type) -> None:
    random = np.random.default_rng(0)
    volume = (random.random((2, *shape)) * 200).astype(dtype)
    tiles = torch.from_numpy(to_tiles(volume))
    assert np.array_equal(read_box(tiles, (0, 0, 0), shape).numpy(), volume)
    for _ in range(20):
        start = [int(random.integers(side)) for side in shape]
        stop = [int(random.integers(low, side)) + 1 for low, side in zip(start, shape, strict=True)]
        expected = volume[(slice(None), *map(slice, start, stop))]
        assert np.array_equal(read_box(tiles, start, stop).numpy(), expected)


def test_little_is_stored_around_a_volume() -> None:
    assert block_edges((340, 17, 1)) == (16, 9, 1)
    for shape in [(97, 97, 97), (340, 340, 267), (20, 300, 300)]:
        stored = math.prod(-(-side // edge) * edge for side, edge in zip(shape, block_edges(shape), strict=True))
        assert stored < 1.2 * math.prod(shape)


def test_a_patch_reads_at_most_twice_its_pages() -> None:
    """Whole pages of 4096 bytes, wherever the patch lies; lines of a plain array take more."""
    shape, side, page, size = (200, 210, 180), 96, 4096, 2
    edges = block_edges(shape)
    assert max(edges) <= EDGE
    numbers = np.arange(math.prod(-(-length // edge) * edge for length, edge in zip(shape, edges, strict=True)))
    blocks = [-(-length // edge) for length, edge in zip(shape, edges, strict=True)]
    tiles = torch.from_numpy(numbers.reshape(1, *blocks, *edges))  # each voxel says where it lies in the file
    plain = np.arange(math.prod(shape)).reshape(shape)
    random, tiled, lines = np.random.default_rng(0), [], []
    for _ in range(10):
        start = [int(random.integers(length - side + 1)) for length in shape]
        stop = [low + side for low in start]
        first = [low // edge for low, edge in zip(start, edges, strict=True)]
        last = [-(-high // edge) for high, edge in zip(stop, edges, strict=True)]
        read = tiles[(slice(None), *map(slice, first, last))].numpy()
        tiled.append(len(np.unique(read * size // page)) * page / (side**3 * size))
        lines.append(len(np.unique(plain[tuple(map(slice, start, stop))] * size // page)) * page / (side**3 * size))
    assert max(tiled) < 2
    assert np.mean(tiled) < np.mean(lines)


def test_what_is_asked_of_the_system_are_the_blocks_of_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """All their bytes and no other's, of each channel."""
    volume = np.arange(2 * 40 * 33 * 50, dtype=np.int32).reshape(2, 40, 33, 50)
    tiles = torch.from_numpy(to_tiles(volume))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("llm4seg.data.tiles.read_ahead", lambda array, runs: asked.extend(runs))
    start, stop = (5, 20, 16), (22, 21, 41)
    read_box(tiles, start, stop)
    edges = tiles.shape[4:]
    blocks = [slice(low // edge, -(-high // edge)) for low, high, edge in zip(start, stop, edges, strict=True)]
    places = np.arange(tiles.numel()).reshape(tiles.shape)[(slice(None), *blocks)]
    first, size = 4 * np.unique(places), 4
    wanted = np.unique(np.concatenate([first + byte for byte in range(size)]))
    assert np.array_equal(np.sort(np.concatenate([np.arange(low, high) for low, high in asked])), wanted)
