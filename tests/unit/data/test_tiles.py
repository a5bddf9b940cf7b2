"""Volumes in tiles: what goes in comes out, and a patch's bytes are read alone."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from llm4seg.data.tiles import PAGE, block_edges, block_type, read_box, to_tiles
from llm4seg.datasets.shards import ShardWriter

SHAPES = [(1, 40, 20), (33, 16, 17), (96, 50, 7), (1, 1, 1)]
DTYPES = ["uint8", "int16", "uint16", "int32", "float32"]


def volume(channels: int, shape: tuple[int, ...], dtype: str = "int16") -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    image = random.integers(-20_000, 20_000, (channels, *shape)).astype(dtype)
    return image, random.integers(0, 256, shape, dtype=np.uint8)


def block_of(image: np.ndarray) -> np.dtype:
    channels, *shape = image.shape
    return block_type(channels, image.dtype.name, block_edges(shape, channels * image.itemsize + 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_box_is_read_as_it_was(shape: tuple[int, ...], dtype: str) -> None:
    image, labels = volume(2, shape, dtype)
    block, random = block_of(image), np.random.default_rng(1)
    tiles = torch.from_numpy(to_tiles(image, labels, block))
    boxes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((0, 0, 0), shape)]
    for _ in range(20):
        start = tuple(int(random.integers(side)) for side in shape)
        stop = tuple(int(random.integers(low, side)) + 1 for low, side in zip(start, shape, strict=True))
        boxes.append((start, stop))
    for start, stop in boxes:
        inside = tuple(map(slice, start, stop))
        found, found_labels = read_box(tiles, block, start, stop)
        assert found.numpy().dtype == image.dtype
        assert np.array_equal(found.numpy(), image[(slice(None), *inside)])
        assert np.array_equal(found_labels.numpy(), labels[inside])


@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (1, "int16"), (1, "float32"), (4, "float32")])
@pytest.mark.parametrize("size", [(96, 96, 96), (64, 64, 32)])
def test_a_patch_reads_at_most_twice_its_bytes(size: tuple[int, ...], channels: int, dtype: str) -> None:
    """Wherever it lies: the mean over all places, of whole blocks that are whole pages."""
    voxel = channels * np.dtype(dtype).itemsize + 1
    edges = block_edges((300, 300, 200), voxel)
    block = block_type(channels, dtype, edges)
    assert block.itemsize % PAGE == 0
    touched = [
        np.mean([-(-(start + side) // edge) - start // edge for start in range(edge)])
        for side, edge in zip(size, edges, strict=True)
    ]
    assert block.itemsize * math.prod(touched) < 1.95 * voxel * math.prod(size)


@pytest.mark.parametrize("shape", [(97, 97, 97), (340, 340, 267), (20, 300, 300), (35, 50, 35), (220, 220, 5)])
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (1, "int16"), (4, "float32")])
def test_little_is_stored_around_a_volume(shape: tuple[int, ...], channels: int, dtype: str) -> None:
    voxel = channels * np.dtype(dtype).itemsize + 1
    edges = block_edges(shape, voxel)
    blocks = math.prod(-(-side // edge) for side, edge in zip(shape, edges, strict=True))
    assert blocks * block_type(channels, dtype, edges).itemsize < 1.2 * voxel * math.prod(shape)


def test_blocks_begin_at_pages_of_the_file(tmp_path: Path) -> None:
    """Beside arrays of other sizes; and safetensors reads all of them as they were."""
    image, labels = volume(1, (40, 33, 20))
    tiles = to_tiles(image, labels, block_of(image))
    arrays = {
        "a/tiles": tiles,
        "a/voxels": np.arange(21, dtype=np.int32).reshape(7, 3),
        "a/foreground": np.linspace(0, 1, 7, dtype=np.float32)[None],
        "b/tiles": tiles[:1] + np.uint8(1),
        "b/voxels": np.zeros((0, 3), np.int32),
    }
    writer = ShardWriter(tmp_path, "grid", pages=True)
    for case in "ab":
        name = writer.add(case, **{key[2:]: array for key, array in arrays.items() if key[0] == case})
    writer.flush()
    content = (tmp_path / name).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for key, entry in json.loads(content[8:header]).items():
        first, last = (header + offset for offset in entry["data_offsets"])
        assert content[first:last] == arrays[key].tobytes()
        assert first % PAGE == 0 or not key.endswith("tiles")
    with safe_open(tmp_path / name, framework="pt") as file:
        assert set(file.keys()) == set(arrays)
        assert all(np.array_equal(file.get_tensor(key).numpy(), array) for key, array in arrays.items())
        assert file.get_tensor("b/tiles").data_ptr() % PAGE == 0  # in memory, too


def test_what_is_asked_of_the_system_are_the_blocks_of_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """All their bytes and no other's."""
    image, labels = volume(2, (40, 33, 50))
    block = block_of(image)
    tiles = torch.from_numpy(to_tiles(image, labels, block))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("llm4seg.data.tiles.read_ahead", lambda array, runs: asked.extend(runs))
    start, stop = (5, 20, 16), (22, 21, 41)
    read_box(tiles, block, start, stop)
    edges = block["labels"].shape
    blocks = [slice(low // edge, -(-high // edge)) for low, high, edge in zip(start, stop, edges, strict=True)]
    wanted = np.arange(tiles.numel()).reshape(tiles.shape)[tuple(blocks)]
    found = np.concatenate([np.arange(low, high) for low, high in asked])
    assert np.array_equal(np.sort(found), np.unique(wanted))
