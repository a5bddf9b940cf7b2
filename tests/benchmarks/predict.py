"""`llm4seg predict` on the default's 36 test slices: images/s beside the bare network's, and start to first mask.

The slices are written as NIfTI files, once a file each and once as one volume. The bare network gets the same images,
resized and normalized before, as many at a time: one of files, `--batch` of a volume. Both take turns in one process;
the fastest round of each counts: by the clock, and by the processor's time of the network's thread, which others on the
machine change less. Weights are random, which changes no time; the LLM's layer is in a store.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import llm4seg
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.predict.cases import find_cases
from llm4seg.predict.model import SegmentationModel
from llm4seg.predict.run import Options, predict_cases
from tests.benchmarks.default import default_config, parser, run
from tests.saved_model import save_random_model

WANTED, ALLOWED = 0.9, 6.0  # of the bare network's images a second; seconds to the first mask
CORONAL = np.array(
    [[0.0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]]
)  # rows to the feet, columns to the right


def write_slices(data: Prepared, case_ids: list[str], root: Path) -> None:
    """A file each, and all in one volume, in the voxels of the template."""
    images = [data.original(case_id)[0][0].numpy() for case_id in case_ids]
    for name in ("files", "volume"):
        (root / name).mkdir()
    for case_id, image in zip(case_ids, images, strict=True):
        nibabel.save(nibabel.Nifti1Image(image[..., None], CORONAL), root / "files" / f"{case_id}.nii.gz")
    volume = np.stack(images, axis=-1)
    nibabel.save(nibabel.Nifti1Image(volume, CORONAL @ np.diag([1, 1, 2, 1])), root / "volume" / "all.nii.gz")


def seconds(function: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """By the clock, and of the processor in this thread."""
    begin, before = time.perf_counter(), time.thread_time()
    function(*arguments)
    return time.perf_counter() - begin, time.thread_time() - before


def command(model: SegmentationModel, source: Path) -> None:
    """Reading, predicting and writing all cases, the model loaded."""
    with tempfile.TemporaryDirectory() as name:
        cases, _ = find_cases(source, 1, Path(name))
        done = [*predict_cases(model, cases, Path(name), Options())]
        assert not [one.error for one in done if one.error]


def network(model: SegmentationModel, images_NCHW: torch.Tensor, batch: int) -> None:
    device = next(model.module.parameters()).device
    with torch.no_grad():
        for images in images_NCHW.split(batch):
            model.module(images.to(device)).cpu()


def seconds_to_first_mask(folder: Path, source: Path, store: Path, out: Path) -> float:
    """Of the command in a process of its own, to the moment at which the mask is there."""
    words = [sys.executable, "-m", "llm4seg.cli", "predict", str(folder), "-i", str(source), "-o", str(out)]
    begin = time.perf_counter()
    running = subprocess.Popen([*words, "--llm", str(store)], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    while running.poll() is None and not [*out.glob("*.nii.gz")]:
        time.sleep(0.01)
    seconds = time.perf_counter() - begin
    if running.wait():
        sys.exit(f"the command ended with exit code {running.returncode}")
    return seconds


def benchmark(rounds: int, batch: int) -> None:
    config = default_config()
    data, test = Prepared(config.paths.prepared), read_split(config.paths.split).test
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_slices(data, [*test], root)
        folder = save_random_model(config.override({"paths.model": str(root / "model")}))
        images_NCHW = torch.stack([data.resampled(case_id)[0] for case_id in test])
        table = Table(title=f"{len(test)} slices on {torch.get_num_threads()} thread(s)")
        for column in ("", "at a time", "images/s", "bare network's", f"share (at least {WANTED})", "of the processor"):
            table.add_column(column, justify="right" if column else "left")
        for kind, together in (("files", 1), ("volume", batch)):
            model = llm4seg.load(folder, llm=config.paths.llm_used, batch=together)
            times = [
                (*seconds(command, model, root / kind), *seconds(network, model, images_NCHW, together))
                for _ in range(rounds + 1)
            ][1:]  # the first warms up
            ours, own, bare, its = (len(test) / min(one) for one in zip(*times, strict=True))
            shares = [f"{one:.2f}" for one in (ours / bare, own / its)]
            table.add_row(f"{kind} of NIfTI", str(together), f"{ours:.1f}", f"{bare:.1f}", *shares)
        first = next((root / "files").iterdir())
        starts = [seconds_to_first_mask(folder, first, config.paths.llm_used, root / f"{k}") for k in range(rounds)]
    Console(width=100).print(table)
    each = ", ".join(f"{one:.1f}" for one in starts)
    print(f"start to first mask: {min(starts):.1f} s (at most {ALLOWED}; each: {each})")


def main() -> None:
    arguments = parser("predict", __doc__, "--rounds 5")
    arguments.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    arguments.add_argument("--batch", type=int, default=4, help="slices of a volume at a time (default: %(default)s)")
    given = arguments.parse_args()
    run(benchmark, given.rounds, given.batch)


if __name__ == "__main__":
    main()
