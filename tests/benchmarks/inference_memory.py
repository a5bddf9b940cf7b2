"""Memory and seconds of predicting one large volume: sliding windows, and labels at the original shape.

Ours resamples the logits to the original shape channel by channel and keeps a running maximum; the plain way is MONAI's
sliding_window_inference on a volume, then all its logits at the original shape, their softmax and argmax. The network
only multiplies, so that the time is that of the method. Each way runs in a process of its own, which has imported
everything and holds the image when the measurement starts; a "volume" is the original image in float32. The plain way
takes 14 GB on the whole volume, so that both are compared on a part of the slices, unless --whole is given.
"""

import argparse
import math
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ORIGINAL, GRID = (512, 512, 400), (340, 340, 267)  # 0.996 x 0.996 x 1 mm, and at 1.5 mm
CLASSES = 14  # of BTCV: background and 13 organs
PATCH = (96, 96, 96)
FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Measured:
    """Seconds of the windows and of all, bytes above the start at most, and the labels."""

    windows: float
    seconds: float
    above: int
    labels: Any


def network(windows_NCS: Any) -> Any:
    """Logits of 14 classes from an image of one channel: the nearest of 14 levels, as in a linear classifier."""
    import torch

    level_K = torch.linspace(0, 1, CLASSES)[:, None, None, None]
    return windows_NCS * (2 * level_K) - level_K**2


def ours(image_CS: Any, shape: Sequence[int], lap: Callable[[], None]) -> Any:
    from llm4seg.inference.sliding_window import labels_at, sliding_window_logits

    logits_KS = sliding_window_logits(network, image_CS, PATCH)
    lap()
    return labels_at(logits_KS, shape)


def plain(image_CS: Any, shape: Sequence[int], lap: Callable[[], None]) -> Any:
    import torch
    from monai.inferers import sliding_window_inference
    from torch.nn import functional

    with torch.no_grad():
        logits_NKS = sliding_window_inference(image_CS[None], PATCH, 1, network, 0.5, mode="gaussian")
        lap()
        probability_NKS = functional.interpolate(logits_NKS, tuple(shape), mode="trilinear").softmax(dim=1)
        return probability_NKS.argmax(dim=1)[0].to(torch.uint8)


WAYS = {"ours": ours, "plain": plain}


def memory(field: str) -> int:
    """Resident memory of this process in bytes: now (VmRSS) or at most (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) * 1024


def smooth_image(grid: Sequence[int]) -> Any:
    """A smooth image (1, *grid) from 0 to 1 with every class in it."""
    import torch
    from torch.nn import functional

    coarse = torch.rand(1, 1, *(max(2, side // 24) for side in grid), generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, tuple(grid), mode="trilinear")[0]


def measure(name: str, shape: Sequence[int], grid: Sequence[int]) -> Measured:
    """Run one way, in this process."""
    WAYS[name](smooth_image((97, 20, 20)), (97, 20, 20), lambda: None)  # imports, threads
    image_CS, laps = smooth_image(grid), list[float]()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, start = memory("VmRSS"), time.perf_counter()
    labels_S = WAYS[name](image_CS, shape, lambda: laps.append(time.perf_counter() - start))
    seconds, above = time.perf_counter() - start, memory("VmHWM") - before
    return Measured(laps[0], seconds, above, labels_S.numpy())


def in_a_process(name: str, shape: Sequence[int], grid: Sequence[int]) -> Measured:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (name, shape, grid))


def row(name: str, shape: Sequence[int], grid: Sequence[int], found: Measured) -> list[str]:
    """Memory in volumes of the original shape, in all and beside the logits at the network's resolution."""
    volume, logits = math.prod(shape) * FLOAT32, CLASSES * math.prod(grid) * FLOAT32
    cells = [found.above / 1e9, found.above / volume, logits / volume, (found.above - logits) / volume]
    return [
        name,
        " x ".join(map(str, shape)),
        *(f"{cell:.2f}" for cell in cells),
        f"{found.windows:.1f}",
        f"{found.seconds:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.inference_memory",
        description=__doc__,
        epilog="example: OMP_NUM_THREADS=1 python -m tests.benchmarks.inference_memory",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--slices", type=int, default=200, help="of 400, in the comparison (default: %(default)s)")
    parser.add_argument("--whole", action="store_true", help="the plain way on all slices, too: 14 GB")
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("memory is read from /proc, which only Linux has")
    slices = ORIGINAL[2] if arguments.whole else arguments.slices
    part, grid = (*ORIGINAL[:2], slices), (*GRID[:2], round(GRID[2] * slices / ORIGINAL[2]))
    runs = [("ours", ORIGINAL, GRID), ("ours", part, grid), ("plain", part, grid)]
    found = {run: in_a_process(*run) for run in runs}
    table = Table(
        title=f"{CLASSES} classes, patch {PATCH[0]}³, overlap 0.5, OMP_NUM_THREADS={os.getenv('OMP_NUM_THREADS')}"
    )
    for heading in ("way", "original", "peak GB", "volumes", "of them logits", "beside them", "s, windows", "s, all"):
        table.add_column(heading, justify="left" if heading in ("way", "original") else "right")
    for run, result in found.items():
        table.add_row(*row(*run, result))
    Console(width=140).print(table)
    differ = (found[runs[1]].labels != found[runs[2]].labels).mean()
    print(f"labels of both ways differ in {differ:.1e} of the voxels: where probabilities, rounded, are equal")


if __name__ == "__main__":
    main()
