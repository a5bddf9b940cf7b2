"""What a grid costs small lesions: the best Dice that a perfect network could reach, on the tumors of `lung-ct`.

Each patient's labels, of which only some slices around the lungs are published, are put into a whole chest, a field of
view of 400 mm along each axis at the volume's own spacing. Then they go to the grid, and back as a prediction's logits
do: by linear interpolation of each class. Of a data.size of 96 x 96 x 48 the grid's labels are the nearest ones, as
`prepare` makes them; of a data.spacing they are interpolated class by class.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.datasets.lung import lung_ct
from llm4seg.datasets.resample import resize_labels
from llm4seg.datasets.resample_volume import resample_labels
from llm4seg.datasets.spacing import across_slices, grid_shape, in_array_order
from llm4seg.inference.sliding_window import labels_at
from tests.tiny import PARAMS

FIELD = 400.0  # mm along each axis
SIZE = (96, 96, 48)


def in_a_chest(labels_S: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Labels in the middle of a field of view of FIELD mm, or of their own where that is larger."""
    wanted = [max(side, round(FIELD / step)) for side, step in zip(labels_S.shape, spacing, strict=True)]
    missing = [whole - side for whole, side in zip(wanted, labels_S.shape, strict=True)]
    return np.pad(labels_S, [(more // 2, more - more // 2) for more in missing])


def back(on_grid_S: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Labels at the original shape, from logits that are sure of the grid's."""
    lesion_S = torch.from_numpy(on_grid_S).float()
    return labels_at(torch.stack([1 - lesion_S, lesion_S]), shape).numpy()


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * np.logical_and(first, second).sum() / (first.sum() + second.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.label_ceiling",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.label_ceiling --spacing 1.5 1.5 2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--spacing", type=float, nargs=3, default=[1.5, 1.5, 2.0], help="x, y, z in mm (default: 1.5 1.5 2)"
    )
    target = in_array_order(parser.parse_args().spacing)
    cache: Path = Config.load(PARAMS).paths.cache
    grid = " x ".join(f"{step:g}" for step in target)
    table = Table("patient", "ml", "original", f"voxels, {grid} mm", "Dice", "voxels, 96 x 96 x 48", "Dice")
    for case in lung_ct(3, cache).cases:
        labels = in_a_chest(case.labels, case.spacing)
        spaced = resample_labels(
            labels, grid_shape(labels.shape, case.spacing, target), across_slices(case.spacing, target)
        )
        resized = resize_labels(labels, SIZE)
        cells = [case.id, f"{labels.sum() * np.prod(case.spacing) / 1000:.1f}", " x ".join(map(str, labels.shape))]
        for one in (spaced, resized):
            cells += [f"{int(one.sum()):,}", f"{dice(back(one, labels.shape), labels):.3f}"]
        table.add_row(*cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
