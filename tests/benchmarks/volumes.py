"""`prepare` of volumes at a spacing: its memory, and its seconds in one process and with two.

Abdomens of 512 x 512 x 150 voxels with 13 organs, as BTCV's, are written as .nii.gz and prepared out of these files.
One "volume" of memory is such a volume in float32. Memory is that of all processes together, the caller's, too, above
what each has after the imports: the most at one time, by the PSS every INTERVAL seconds; and the sum of the most of
each (its peak resident memory, whenever it was), which is never less. Where other programs run beside it, `--rounds`
tells how much they disturb: the fastest round counts. A round more is for the memory, as looking takes time.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from llm4seg.utils.files import remove
from tests.tiny import PARAMS
from tests.volume_layouts import save

SHAPE, SPACING = (512, 512, 150), (0.8, 0.8, 3.0)
ORGANS = tuple(f"organ {k}" for k in range(1, 14))
INTERVAL = 0.05
VOLUME = 4 * int(np.prod(SHAPE))  # bytes
CHANGES = {
    "data.dataset": "folder",
    "data.classes": {organ: [number + 1] for number, organ in enumerate(ORGANS)},
    "data.spatial_dims": 3,
    "data.grid": "spacing",
    "data.spacing": [1.5, 1.5, 2.0],
    "data.intensity": "ct",
}


@dataclass(frozen=True)
class Measured:
    seconds: float
    cpu: float
    together: float  # volumes of memory, of all processes at one time
    each: float  # the most of each process, summed up


def write(root: Path, count: int) -> None:
    """Bodies of noise in air, with balls as organs, as files."""
    for number, (image, labels) in enumerate(volumes(count)):
        for folder, values in (("images", image), ("masks", labels)):
            save(root / folder / f"case-{number:02d}.nii.gz", values, "LPS", np.diag([*SPACING, 1.0]))


def volumes(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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
        yield image, labels


def config() -> Config:
    return Config.load(PARAMS).override(CHANGES)


def peak(pid: int) -> int:
    """The largest resident memory of a process so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)


def prepare(root: Path, folder: Path, workers: int, imported: "Queue[float]", results: "Queue[float]") -> None:
    """In a process of its own."""
    import nibabel  # noqa: F401  what readers of files import
    import scipy.ndimage  # noqa: F401

    section = config().override({"data.root": str(root)}).data
    imported.put(psutil.Process().memory_full_info().pss)
    imported.put(peak(os.getpid()))
    began = time.perf_counter()
    write_prepared(open_dataset(section, root), section, folder, workers=workers)
    results.put(time.perf_counter() - began)
    times = os.times()
    results.put(times.user + times.system + times.children_user + times.children_system)


def measure(root: Path, folder: Path, workers: int, memory: bool) -> Measured:
    context = multiprocessing.get_context("spawn")
    imported, results = context.Queue(), context.Queue()
    child = context.Process(target=prepare, args=(root, folder, workers, imported, results))
    child.start()
    pss, resident = imported.get(), imported.get()
    together, most = 0.0, dict[int, float]()
    while memory and child.is_alive() and results.empty():
        processes = [psutil.Process(child.pid), *psutil.Process(child.pid).children()]
        with suppress(psutil.NoSuchProcess, FileNotFoundError):  # it has just ended
            used = {one.pid: one.memory_full_info().pss - pss for one in processes}
            together = max(together, sum(max(0, above) for above in used.values()))
            most |= {pid: max(most.get(pid, 0), peak(pid) - resident) for pid in used}
        time.sleep(INTERVAL)
    seconds, cpu = results.get(), results.get()
    child.join()
    if child.exitcode:
        sys.exit(child.exitcode)
    return Measured(seconds, cpu, together / VOLUME, sum(most.values()) / VOLUME)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.volumes", description=__doc__)
    parser.add_argument("--cases", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: 1 2)")
    parser.add_argument("--root", type=Path, help="a folder for the files, which are used again if they are there")
    arguments = parser.parse_args()
    found: dict[int, list[Measured]] = {workers: [] for workers in arguments.workers}
    digests = set()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.root or Path(temporary) / "raw"
        if not root.exists():
            write(root, arguments.cases)
        for number, workers in product(range(arguments.rounds + 1), found):
            target = Path(temporary) / f"{workers}-{number}"
            found[workers].append(measure(root, target, workers, memory=number == 0))
            digests.add(Prepared(target).sha256)
            remove(target)
    table = Table("processes", "s a volume", "CPU s a volume", "times", "volumes of memory", "each at its most")
    first = min(one.seconds for one in found[arguments.workers[0]][1:])
    for workers, measured in found.items():
        best = min(measured[1:], key=lambda one: one.seconds)
        cells = [best.seconds / arguments.cases, best.cpu / arguments.cases, first / best.seconds]
        memory = measured[0].together, measured[0].each
        table.add_row(str(workers), *(f"{cell:.2f}" for cell in cells), *(f"{volumes:.1f}" for volumes in memory))
    Console().print(table)
    print("the same bytes" if len(digests) == 1 else f"DIFFERENT BYTES: {digests}")


if __name__ == "__main__":
    main()
