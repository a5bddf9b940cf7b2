"""What a trial costs beside its epochs: as a training of its own, as the first of its process, and as a later one.

The default question on small images. Everything that is no epoch counts: processes, imports, the process group, the
model, the engine, and the way of the first result to the one who asked. An epoch's own time is that of the later ones.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from tests.benchmarks.workspace import searched, workspace

EPOCHS = 3
LAYER = "model.llm.layer"


def alone(config: Config, layers: list[int]) -> list[float]:
    """Seconds of each training by `train_on_ray`, on one Ray that is there before."""
    from llm4seg.cluster.launch import train_on_ray
    from llm4seg.cluster.session import ray_session
    from llm4seg.search.driver import shared_out

    seconds = []
    with ray_session(config.cluster):
        config = shared_out(config)
        for layer in layers:
            trial = config.override({LAYER: layer, "training.epochs": EPOCHS})
            began = time.monotonic()
            outcome = train_on_ray(trial)
            seconds.append(time.monotonic() - began)
            outcome.forget()
    return seconds


def beside_epochs(epochs: pd.DataFrame) -> tuple[float, list[float]]:
    """An epoch's seconds, and for each trial, in order, those that were no epoch."""
    by_trial = epochs.pivot(index="number", columns="epoch", values="seconds").sort_index()
    epoch = float(by_trial[list(range(2, EPOCHS + 1))].stack().median())
    return epoch, [float(seconds) - epoch for seconds in by_trial[1]]


def table(rows: dict[str, list[float]], epoch: float) -> Table:
    shown = Table(title=f"seconds of a trial beside its epochs (of {epoch:.1f} s)")
    for heading in ("trial", "median", "most", "trials"):
        shown.add_column(heading, justify="left" if heading == "trial" else "right")
    for name, seconds in rows.items():
        shown.add_row(name, f"{pd.Series(seconds).median():.1f}", f"{max(seconds):.1f}", str(len(seconds)))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.trial_start",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.trial_start --folder .cache/trial-start --trials 6",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path(".cache/trial-start"), help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=64, help="side of the images (default: %(default)s)")
    arguments = parser.parse_args()
    layers = list(range(arguments.trials))
    changes: dict[str, Any] = {
        "search.trials": len(layers),
        "search.epochs": EPOCHS,
        "search.algorithm": "grid",
        "search.asha": None,
        "search.space": {LAYER: layers},
    }
    config = workspace(arguments.folder, arguments.size, changes)
    _, epochs, _ = searched(config, "trials")
    epoch, beside = beside_epochs(epochs)
    fresh = [seconds - EPOCHS * epoch for seconds in alone(config, layers[:3])]
    rows = {"a training of its own": fresh, "a process's first": beside[:1], "its later ones": beside[1:]}
    Console().print(table(rows, epoch))


if __name__ == "__main__":
    main()
