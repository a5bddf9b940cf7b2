"""Patches at the volumes' spacing against whole volumes resized to one grid, for equal CPU seconds of training.

Twenty made-up patients with known lesions (tests.benchmarks.lesion_phantom): 12 to train on, 2 to validate, 6 to
test. Both ways train the same small U-Net without an LLM, with the same optimizer, loss and flips, in one process and
one thread. A few steps and the validation are timed first, so that as many epochs are trained as fit into the seconds,
validations included. "Ceiling" is the test Dice of the true labels, brought to the way's grid and back.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.evaluation.evaluate import evaluate_cases
from llm4seg.inference.prepared import in_place
from llm4seg.inference.sliding_window import labels_at
from llm4seg.objectives.metrics import overlap, scheme_counts
from llm4seg.training.inputs import training_inputs
from llm4seg.training.run import LocalRun, start_group_of_one
from llm4seg.training.trainer import Trainer, assemble
from tests.benchmarks.lesion_phantom import write
from tests.tiny import PARAMS

COMMON: dict[str, Any] = {
    "data.dataset": "folder",
    "data.spatial_dims": 3,
    "data.classes": {"lesion": [1]},
    "data.intensity": "zscore",
    "split.val": 0.1,
    "split.test": 0.3,
    "model.bottleneck": "identity",
    "model.backbone": "unet",
    "model.unet.channels": [8, 16, 32, 64],
    "training.loss": "dice_ce",
    "training.augment.flip": [0, 1],
    "training.augment.rotate": 0,
    "training.augment.scale": 0,
    "training.augment.shift": 0,
    "engine.name": "torch",
    "cluster.launcher": "process",
    "cluster.device": "cpu",
}
WAYS: dict[str, dict[str, Any]] = {
    "resize": {"data.grid": "resize", "data.size": [96, 96, 48], "training.batch_size": 1},
    "spacing": {
        "data.grid": "spacing",
        "data.spacing": "auto",
        "training.batch_size": 4,
        "training.patch.size": [64, 64, 32],
        "training.patch.per_case": 10,
    },
}
TIMED = 4  # steps, after as many to warm up


@dataclass(frozen=True)
class Trained:
    epochs: int
    seen: int  # volumes or patches
    seconds: float  # of CPU
    rows: list[dict[str, Any]]  # of the test cases


def way_config(folder: Path, way: str, seed: int) -> Config:
    """The way's config, its paths inside the folder; the data are prepared unless they are there."""
    from pipelines.prepare import prepare
    from pipelines.split import split

    config, project = Config.load(PARAMS), PARAMS.absolute().parent
    paths = {f"paths.{name}": str(folder / way / path.relative_to(project)) for name, path in config.paths}
    changes = {**COMMON, **WAYS[way], "data.root": str(folder / "phantom"), "training.seed": seed}
    config = config.override(paths | changes)
    if not config.data.root.exists():
        write(config.data.root)
    if not config.paths.split.exists():
        prepare(config)
        split(config)
    return config


def epochs_within(config: Config, folder: Path, seconds: float) -> int:
    """How many epochs fit into CPU seconds, by the times of some steps and of one validation."""
    trainer = Trainer(config, LocalRun(folder))
    whole, (trainer.steps, laps) = trainer.steps, (TIMED, [time.process_time()])
    for number in range(2):
        trainer.progress.step = 0
        trainer.train_epoch(number)
        laps.append(time.process_time())
    trainer.validate()
    epoch = (laps[2] - laps[1]) / TIMED * whole + time.process_time() - laps[2]
    return max(1, round(seconds / epoch))


def trained(config: Config, folder: Path, seconds: float) -> Trained:
    epochs = epochs_within(config, folder / "timed", seconds)
    config = config.override({"training.epochs": epochs})
    began = time.process_time()
    trainer = Trainer(config, LocalRun(folder / "run"))
    history = trainer.train()
    spent = time.process_time() - began
    print([round(row["val_dice"], 3) for row in history], flush=True)
    data, split = training_inputs(config)
    model = assemble(config, data)
    model.load_weights(trainer.weights)
    rows, _ = evaluate_cases(model, data, split.test, config.evaluation)
    return Trained(epochs, epochs * len(trainer.samples), spent, rows)


def ceiling(config: Config) -> float:
    """The mean Dice of the test cases' labels to the grid and back."""
    data, split = training_inputs(config)
    scores = []
    for case_id in split.test:
        case, labels_S = data.cases[case_id], data.resampled(case_id)[1].long()
        shape = case.shape if case.grid is None else [high - low for low, high in case.grid.crop]
        back_S = labels_at(torch.nn.functional.one_hot(labels_S, 2).movedim(-1, 0).float(), shape)
        if case.grid is not None:
            back_S = in_place(back_S, case.grid.crop, case.shape)
        ((tp, fp, fn),) = scheme_counts(back_S, data.original(case_id)[1], data.scheme).tolist()
        scores.append(overlap(tp, fp, fn)["dice"])
    return mean(scores)


def about_lesions(config: Config) -> str:
    data = Prepared(config.paths.prepared)
    shares = [100 * case.pixels["lesion"] / torch.Size(case.shape).numel() for case in data.cases.values()]
    parts = read_split(config.paths.split)
    sizes = f"{len(parts.train)} train, {len(parts.val)} val, {len(parts.test)} test"
    return f"{sizes}; lesions are {min(shares):.2f} to {max(shares):.2f} % of a volume, {mean(shares):.2f} on average"


def cells(found: Trained, highest: float) -> list[str]:
    """Mean Dice over the test cases, the share of all their lesions that were found, and false ones a case."""
    lesions, hits, false = (
        sum(row[name] for row in found.rows) for name in ("lesions", "found_lesions", "false_lesions")
    )
    dice = mean(row["dice"] for row in found.rows)
    numbers = [f"{found.seconds:.0f}", f"{dice:.3f}", f"{highest:.3f}"]
    return [str(found.epochs), str(found.seen), *numbers, f"{hits / lesions:.2f}", f"{false / len(found.rows):.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.lesion_training",
        description=__doc__,
        epilog="example: OMP_NUM_THREADS=1 python -m tests.benchmarks.lesion_training /tmp/lesions --seconds 300",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="for the data; what is there is used again")
    parser.add_argument("--seconds", type=float, default=300, help="of CPU, a training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: %(default)s")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], help="default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start_group_of_one(torch.device("cpu"))
    folder = arguments.folder.absolute()
    headings = ("way", "seed", "epochs", "images", "CPU s", "test Dice", "ceiling", "found lesions", "false a case")
    table = Table(*headings)
    for seed in arguments.seeds:
        for way in arguments.ways:
            config = way_config(folder, way, seed)
            print(f"{way}: {about_lesions(config)}", flush=True)
            found = trained(config, folder / way / f"seed-{seed}-{arguments.seconds:g}", arguments.seconds)
            table.add_row(way, str(seed), *cells(found, ceiling(config)))
            Console(width=140).print(table)


if __name__ == "__main__":
    main()
