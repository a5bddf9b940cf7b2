"""Volumes at a spacing: memory and seconds of `prepare`, patches a second, and what the grid costs a small lesion.

    python -m tests.benchmarks.volumes [--cases 10]

Made in a temporary folder: abdomens of 512 x 512 x 150 voxels with 13 organs, as BTCV's are. One "volume" of memory is
such a volume in float32. Patches are read from files that were just written, so from the page cache; they are compared
with patches out of normalized volumes that are held in memory.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from llm4seg.config import Config
from llm4seg.config.schema import Data
from llm4seg.data.patches import load_patches
from llm4seg.data.prepared import Prepared
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.resample import resize_labels
from llm4seg.datasets.resample_volume import resample_labels
from llm4seg.datasets.spacing import grid_shape
from llm4seg.datasets.writer import write_prepared
from tests.tiny import PARAMS

SHAPE, SPACING = (512, 512, 150), (0.8, 0.8, 3.0)
ORGANS = tuple(f"organ {k}" for k in range(1, 14))
VOLUME = 4 * int(np.prod(SHAPE))  # bytes
CHANGES = {
    "data.dataset": "btcv",
    "data.spatial_dims": 3,
    "data.grid": "spacing",
    "data.spacing": [1.5, 1.5, 2.0],
    "data.intensity": "ct",
}
CHEST, LESION = ((340.0, 340.0, 300.0), 11.6)  # mm: a field of view, and the radius of a tumor of 6.5 ml


def volumes(count: int) -> Iterator[RawCase]:
    """Bodies of noise in air, with balls as organs."""
    rows, columns = np.ogrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    body = (rows / 0.7) ** 2 + (columns / 0.85) ** 2 < 1
    for number in range(count):
        random = np.random.default_rng(number)
        image = np.full(SHAPE, -1024, np.int16)
        labels = np.zeros(SHAPE, np.uint8)
        for position in range(SHAPE[2]):
            image[body, position] = random.normal(40, 30, int(body.sum())).astype(np.int16)
        for organ in range(1, 14):
            center = [int(side * random.uniform(0.3, 0.7)) for side in SHAPE]
            reach = [int(random.uniform(10, 30) / step) for step in SPACING]
            around = tuple(slice(max(0, at - by), at + by) for at, by in zip(center, reach, strict=True))
            grid = np.ogrid[
                tuple(slice(part.start, min(part.stop, side)) for part, side in zip(around, SHAPE, strict=True))
            ]
            ball = sum(((axis - at) / by) ** 2 for axis, at, by in zip(grid, center, reach, strict=True)) < 1
            labels[around][ball] = organ
            image[around][ball] += np.int16(10 * organ)
        name = f"case-{number:02d}"
        yield RawCase(name, name, name, image[None], labels, SPACING)


def section() -> Data:
    return config().data


def config() -> Config:
    return Config.load(PARAMS).override(CHANGES)


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def prepare(folder: Path, count: int) -> None:
    """In a process of its own."""
    import nibabel  # noqa: F401  what readers of files import
    import scipy.ndimage  # noqa: F401

    before, began = peak(), time.perf_counter()
    dataset = Dataset("made", "none", "none", "", ORGANS, volumes(count))
    write_prepared(dataset, section(), folder)
    seconds = (time.perf_counter() - began) / count
    above = (peak() - before) / VOLUME
    print(f"prepare: {seconds:.1f} s a volume, {above:.1f} volumes of memory above {before / 1e6:.0f} MB of imports")


def patches(folder: Path, steps: int = 40) -> None:
    """Patches a second, of batches of four."""
    data, part = Prepared(folder), config().training.patch
    data = data.for_network(part.size, data.intensity_of(data.cases))
    cases = list(data.cases)

    def read(step: int) -> None:
        own = [cases[(4 * step + k) % len(cases)] for k in range(4)]
        load_patches(data, own, range(4 * step, 4 * step + 4), part, 0, 0)

    for step in range(steps):  # into the page cache
        read(step)
    began = time.perf_counter()
    for step in range(steps):
        read(step)
    tiled = 4 * steps / (time.perf_counter() - began)
    random, (image, labels) = np.random.default_rng(0), data.resampled(cases[0])
    began = time.perf_counter()
    for _ in range(steps):
        batch = []
        for _ in range(4):
            room = [side - length + 1 for side, length in zip(labels.shape, part.size, strict=True)]
            start = [int(random.integers(most)) for most in room]
            box = tuple(slice(low, low + length) for low, length in zip(start, part.size, strict=True))
            batch.append((image[(slice(None), *box)], labels[box]))
        torch.stack([image_CS for image_CS, _ in batch])
        torch.stack([labels_S for _, labels_S in batch]).long()
    held = 4 * steps / (time.perf_counter() - began)
    print(f"patches: {tiled:.0f} a second out of shards; {held:.0f} out of volumes held in memory, normalized")


def ceiling() -> None:
    """The best Dice that a perfect network could have of a ball in a chest: labels to the grid and back."""
    shape = tuple(round(side / step) for side, step in zip(CHEST, SPACING, strict=True))
    place = np.ogrid[tuple(slice(0, side) for side in shape)]
    middle = [0.43 * side for side in shape]
    squares = [((axis - at) * step) ** 2 for axis, at, step in zip(place, middle, SPACING, strict=True)]
    labels = (sum(squares) < LESION**2).astype(np.uint8)

    def dice(back: np.ndarray) -> float:
        return float(2 * (back & labels).sum() / (back.sum() + labels.sum()))

    on_grid = resample_labels(labels, grid_shape(shape, SPACING, (1.5, 1.5, 2.0)), None)
    resized = resize_labels(labels, (96, 96, 48))
    print(f"a tumor of {labels.sum() * np.prod(SPACING) / 1000:.1f} ml in a chest, to the grid and back: Dice ", end="")
    print(f"{dice(resample_labels(on_grid, shape, None)):.3f} at 1.5 x 1.5 x 2 mm, {on_grid.sum()} voxels; ", end="")
    print(f"{dice(resample_labels(resized, shape, None)):.3f} at 96 x 96 x 48, {resized.sum()} voxels")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.volumes", description=__doc__)
    parser.add_argument("--cases", type=int, default=10, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "prepared"
        child = multiprocessing.get_context("spawn").Process(target=prepare, args=(target, arguments.cases))
        child.start()
        child.join()
        patches(target)
    ceiling()


if __name__ == "__main__":
    main()
