"""Patches read from shards against the same patches held in memory, in training; and the bytes that a patch reads.

Abdomens of 512 x 512 x 150 voxels (tests.benchmarks.volumes) at 1.5 x 1.5 x 2 mm. A small U-Net without an LLM trains
on batches of four patches, epochs from the shards (in the page cache) and epochs of batches that are held in memory in
turn; images are per second of CPU, of one thread, so that what else the machine does counts little. Then the shards are
put out of the page cache, and the system's count of what it reads from the disk is taken for a patch.
"""

import argparse
import ctypes
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.patches import patch_start
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, write_split
from llm4seg.training.feed import Batch, Feed
from llm4seg.training.inputs import training_inputs
from llm4seg.training.run import LocalRun, start_group_of_one
from llm4seg.training.trainer import Trainer
from tests.benchmarks.volumes import config, measure, write

CHANGES: dict[str, Any] = {
    "model.bottleneck": "identity",
    "model.backbone": "unet",
    "training.batch_size": 4,
    "training.patch.per_case": 2,
    "training.augment.rotate": 0,
    "training.augment.scale": 0,
    "training.augment.shift": 0,
    "engine.name": "torch",
    "cluster.device": "cpu",
}
CHANNELS = [8, 16, 32]
PATCHES = ([96, 96, 96], [64, 64, 32])
CASES = 4


class Held(Feed):
    """Batches of a training that are those of its first epoch, in memory."""

    batches: list[Batch] | None = None

    def micro_batches(self, order: np.ndarray, epoch: int) -> Generator[Batch, None, None]:
        if self.batches is None:
            self.batches = list(super().micro_batches(order, 0))
        yield from self.batches


def rates(config: Config, folder: Path, rounds: int) -> tuple[float, float]:
    """Images per CPU second in training, from shards and from memory: medians of epochs in turn."""
    trainers = [Trainer(config, LocalRun(folder / name)) for name in ("shards", "held")]
    held = trainers[1]
    held.feed = Held(config, held.data, held.samples, held.training_labels, held.run)
    laps: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for trainer, own in zip(trainers, laps, strict=True):
            trainer.progress.step, trainer.progress.loss = 0, 0.0
            began = time.process_time()
            trainer.train_epoch(number)
            own.append(time.process_time() - began)
    images = len(trainers[0].samples)
    shards, held = (images / median(own[1:]) for own in laps)  # the first epoch warms up
    return shards, held


def loading(config: Config) -> tuple[float, float]:
    """Patches per CPU second without a training: read and normalized, and copied out of memory."""
    data, split = training_inputs(config)
    places = _places(data, split.train, config, 8)
    held = [data.patch(*place) for place in places]
    began = time.process_time()
    for place in places:
        data.patch(*place)
    middle = time.process_time()
    for image_CS, labels_S in held:
        image_CS.clone(), labels_S.clone()
    return len(places) / (middle - began), len(places) / (time.process_time() - middle)


def _places(data: Prepared, cases: tuple[str, ...], config: Config, each: int) -> list[tuple[str, tuple[int, ...]]]:
    random = np.random.default_rng(0)
    return [(case, patch_start(data, case, config.training.patch, random)) for case in cases for _ in range(each)]


def bytes_read(config: Config) -> float:
    """What the system reads from the disk for a patch, in times the patch's bytes: the median.

    Each patch is out of shards that nothing of is in memory, which have been opened.
    """
    data, split = training_inputs(config)
    places = _places(data, split.train, config, 6)
    for case, _ in places:
        data.patch(case, (0, 0, 0))  # opens its shard
    return median(_fetched(data, *place) for place in places)


def _fetched(data: Prepared, case: str, start: tuple[int, ...]) -> float:
    _unmap(data._tensor(case, "tiles").numpy())
    for shard in data.folder.glob("grid-*.safetensors"):
        with shard.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = _read()
    image_CS, labels_S = data.patch(case, start)
    values = np.dtype(data.cases[case].on_grid.dtype).itemsize
    return (_read() - before) / (image_CS.numel() * values + labels_S.numel())


def _unmap(array: np.ndarray) -> None:
    """Forget an array's pages in this process, so that the system can forget them, too."""
    address = array.__array_interface__["data"][0]
    start = address - address % mmap.PAGESIZE
    length = ctypes.c_size_t(address + array.nbytes - start)
    if ctypes.CDLL(None).madvise(ctypes.c_void_p(start), length, mmap.MADV_DONTNEED):
        sys.exit("madvise: refused")


def _read() -> int:
    """The bytes that this process had read from a disk so far."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def made(folder: Path) -> Config:
    """The config of some prepared volumes in a folder, all to train on; they are made unless they are there."""
    paths = {"paths.prepared": str(folder / "prepared"), "paths.split": str(folder / "split.json")}
    changed = config().override(paths | CHANGES)
    if not changed.paths.prepared.exists():
        write(folder / "raw", CASES)
        measure(folder / "raw", changed.paths.prepared, 1)
    ids = tuple(Prepared(changed.paths.prepared).cases)
    write_split(changed.paths.split, Split("all", 0, ids, ids[:1], ids[:1], (), ()))
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.volume_patches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each way (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="for the volumes; what is there is used again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start_group_of_one(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for size in PATCHES:  # first: what a training has mapped stays in memory
            times = bytes_read(made(folder).override({"training.patch.size": size}))
            print(f"{size}: {times:.2f} times a patch's bytes are read from the disk", flush=True)
        table = Table("patch", "way", "from shards", "in memory", "share", title="images a CPU second")
        for size in PATCHES:
            config = made(folder).override({"training.patch.size": size})
            ways = {"loading alone": loading(config)}
            network = config.override({"model.unet.channels": CHANNELS})
            ways["training"] = rates(network, Path(temporary) / f"{size}", arguments.rounds)
            for name, (shards, held) in ways.items():
                cells = [f"{shards:.1f}", f"{held:.1f}", f"{shards / held:.3f}"]
                table.add_row(" x ".join(map(str, size)), name, *cells)
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
