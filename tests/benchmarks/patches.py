"""Patches at a spacing beside volumes resized to one size, trained for the same seconds on made-up lesions.

    python -m tests.benchmarks.patches [--seconds 120]

Twenty patients with volumes of three spacings and five orientations, 200 x 200 x 160 mm: one to three lesions each, of
0.05 to 0.5 % of the volume, no brighter than the vessels that run through it. The CNN alone, from the same seeds; Dice
of the four test patients on the original grids, with the best weights by the validation part.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.evaluation.evaluate import evaluate
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.inputs import training_inputs
from llm4seg.training.run import LocalRun, start_group_of_one
from llm4seg.training.trainer import assemble, fit
from pipelines.prepare import prepare
from pipelines.split import split
from tests.finished_run import config_at
from tests.volume_layouts import CODES, save

PATIENTS, FIELD = 20, np.array([200.0, 200.0, 160.0])
SPACINGS = ((1.0, 1.0, 4.0), (1.25, 1.25, 2.5), (1.6, 1.6, 3.2))  # mm to the right, to the front, to the head
BASE: dict[str, Any] = {
    "data.dataset": "folder",
    "data.classes": {"lesion": [1]},
    "data.spatial_dims": 3,
    "data.intensity": "zscore",
    "model.bottleneck": "identity",
    "model.backbone": "unet",  # of the networks here the fastest on a CPU in 3-D
    "model.unet.channels": [16, 32, 64, 128],
    "model.unet.residual_units": 0,
    "training.batch_size": 4,
    "training.augment.flip": [0, 1, 2],
    "evaluation.bootstrap": 100,
}
WAYS: dict[str, dict[str, Any]] = {
    "resized to 48 x 48 x 32": {"data.size": [48, 48, 32]},
    "resized to 96 x 96 x 48": {"data.size": [96, 96, 48]},
    "patches of 48 x 48 x 32 at 2 x 2 x 3 mm": {
        "data.grid": "spacing",
        "data.spacing": [2.0, 2.0, 3.0],
        "training.patch.size": [48, 48, 32],
        "training.patch.per_case": 16,  # an epoch has as many patches as its validation has windows
    },
}


def volume(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image (x, y, z) int16, its lesions, and its affine."""
    random, spacing = np.random.default_rng(number), np.array(SPACINGS[number % len(SPACINGS)])
    shape = tuple(np.round(FIELD / spacing).astype(int))
    x, y, z = np.ogrid[tuple(slice(0, side) for side in shape)]
    place = [(axis + 0.5) * step for axis, step in zip((x, y, z), spacing, strict=True)]
    labels = np.zeros(shape, np.uint8)
    for _ in range(random.integers(1, 4)):
        center, radius = random.uniform(0.2, 0.8, 3) * FIELD, random.uniform(9, 19)
        labels[sum((axis - at) ** 2 for axis, at in zip(place, center, strict=True)) < radius**2] = 1
    bright = labels.astype(np.float32)
    for _ in range(12):  # vessels, along the head
        center, lean, radius = (
            random.uniform(0.1, 0.9, 2) * FIELD[:2],
            random.uniform(-0.5, 0.5, 2),
            random.uniform(3, 7),
        )
        off = [place[k] - center[k] - lean[k] * (place[2] - FIELD[2] / 2) for k in (0, 1)]
        bright[off[0] ** 2 + off[1] ** 2 < radius**2] = 1
    sigma = 2 / spacing
    texture = ndimage.gaussian_filter(random.standard_normal(shape), 3 * sigma)
    image = (
        40 + 60 * ndimage.gaussian_filter(bright, sigma) + 15 * texture / texture.std() + random.normal(0, 15, shape)
    )
    return image.round().astype(np.int16), labels, np.diag([*spacing, 1.0])


def write(root: Path) -> None:
    for number in range(PATIENTS):
        image, labels, affine = volume(number)
        codes = CODES[number % len(CODES)]
        save(root / "images" / f"patient-{number:02d}.nii.gz", image, codes, affine)
        save(root / "masks" / f"patient-{number:02d}.nii.gz", labels, codes, affine)


def measured(config: Config, seconds: float, folder: Path) -> tuple[int, float, float]:
    """Epochs, seconds, and the test part's mean Dice."""
    began = time.perf_counter()
    fit(config.override({"training.epochs": 1}), LocalRun(folder / "warm"))
    began = time.perf_counter()
    fit(config.override({"training.epochs": 2}), LocalRun(folder / "timed"))
    epochs = max(2, round(2 * seconds / (time.perf_counter() - began)))
    config, began = config.override({"training.epochs": epochs}), time.perf_counter()
    fit(config, LocalRun(folder / "run"))
    took = time.perf_counter() - began
    data, parts = training_inputs(config)
    model = assemble(config, data)
    model.load_weights(Checkpoint.read(folder / "run" / "checkpoint").weights)
    return epochs, took, evaluate(model, data, parts, config.evaluation).summary["dice"]["mean"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.patches", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of each training, about; default: %(default)s")
    arguments = parser.parse_args()
    start_group_of_one(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root / "raw")
        for place, (way, changes) in enumerate(WAYS.items()):
            config = config_at(root / str(place), BASE | changes | {"data.root": str(root / "raw")})
            prepare(config)
            split(config)
            assert read_split(config.paths.split).test
            cases = Prepared(config.paths.prepared).cases.values()
            shares = [100 * sum(case.pixels.values()) / np.prod(case.shape) for case in cases]
            epochs, took, dice = measured(config, arguments.seconds, root / str(place))
            print(f"{way}: Dice {dice:.3f} after {epochs} epochs, {took:.0f} s", flush=True)
        print(f"lesions are {min(shares):.2f} to {max(shares):.2f} % of their volume")


if __name__ == "__main__":
    main()
