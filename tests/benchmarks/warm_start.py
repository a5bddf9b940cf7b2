"""What `search.warm_start` is worth: does it rank layers as full training does, and for how much less?

The default data on small images; every third layer or so, each trained in full from scratch (with two seeds: how well
full training agrees with itself is the most that anything can reach), from scratch for a few epochs, and for as few
from the trained CNN. Agreement is Kendall's tau. Interrupted, it goes on when run again.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from tests.benchmarks.workspace import LAYERS, PAIRED, searched, workspace

LAYER = "model.llm.layer"


def ranked(trials: pd.DataFrame) -> pd.Series:
    """Dice by layer."""
    return trials.set_index(LAYER)["val_dice"].sort_index()


def table(ways: dict[str, tuple[pd.Series, float, float]]) -> Table:
    """Each way's agreement with the first, and what it costs."""
    (first, epochs_of_first, seconds_of_first), *_ = ways.values()
    shown = Table(title=f"{len(first)} layers, ranked in other ways than by full training")
    for heading in ("way", "Kendall's tau", "p", "spread of Dice", "epochs", "share", "minutes", "share "):
        shown.add_column(heading, justify="left" if heading == "way" else "right")
    for name, (dice, epochs, seconds) in ways.items():
        tau, p = kendalltau(first, dice)
        agreement = ("", "") if dice is first else (f"{tau:.2f}", f"{p:.3f}")
        spread = f"{100 * (dice.max() - dice.min()):.2f} points"
        costs = (f"{epochs:.0f}", f"{epochs / epochs_of_first:.0%}", f"{seconds / 60:.1f}")
        shown.add_row(name, *agreement, spread, *costs, f"{seconds / seconds_of_first:.0%}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.warm_start",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.warm_start --folder .cache/warm-start --epochs 18 --few 3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path(".cache/warm-start"), help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=18, help="of full training (default: %(default)s)")
    parser.add_argument("--few", type=int, default=3, help="epochs of a short trial (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of the images (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=12, help="how many, evenly spread (default: %(default)s)")
    arguments = parser.parse_args()
    layers = [round(number * (LAYERS - 1) / (arguments.layers - 1)) for number in range(arguments.layers)]
    changes: dict[str, Any] = {
        "training.epochs": arguments.epochs,
        "search.trials": len(layers),
        "search.algorithm": "grid",
        "search.asha": None,
        "search.space": {LAYER: layers},
    } | PAIRED
    config = workspace(arguments.folder, arguments.size, changes)
    other = config.override({"training.seed": config.training.seed + 1})
    runs = {
        "full": searched(config, "full", epochs=arguments.epochs),
        "full, another seed": searched(other, "full-again", epochs=arguments.epochs),
        "short": searched(config, "short", epochs=arguments.few),
        "short, warm start": searched(config, "warm", epochs=arguments.few, warm_start=True),
    }
    baseline = {"short, warm start": arguments.epochs}  # epochs of the CNN alone, which is trained in full
    ways = {
        name: (ranked(trials), float(trials["epochs"].sum() + baseline.get(name, 0)), seconds)
        for name, (trials, _, seconds) in runs.items()
    }
    Console().print(table(ways))


if __name__ == "__main__":
    main()
