"""What a search saves: TPE with ASHA against the exhaustive grid, over all 30 layers and the adapter's widths.

The default data on small images. First the grid, every point for all epochs; then one search of the same space with at
most 30 % of the grid's epochs; then the same search with other seeds, replayed on the curves that the grid has left
(a trial is the same training in both, so it would give the same numbers). Interrupted, it goes on when run again.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.config.schema import Overrides
from tests.benchmarks.workspace import LAYERS, PAIRED, searched, workspace

LAYER, KIND, WIDTH = "model.llm.layer", "model.llm.adapter.kind", "model.llm.adapter.width"
SHARE = 0.3  # of the grid's epochs, at most
REPLAYS = 20


def space(widths: list[int]) -> dict[str, Any]:
    """Every layer with the linear adapter, and with a bottleneck of each width."""
    return {
        LAYER: {"randint": [0, LAYERS - 1]},
        KIND: ["linear", "bottleneck"],
        WIDTH: {"choice": widths, "when": {KIND: "bottleneck"}},
    }


def key(point: Overrides) -> tuple[Any, ...]:
    width = point.get(WIDTH)
    return point[LAYER], point[KIND], None if width is None or np.isnan(width) else int(width)


def replay(config: Config, curves: dict[tuple[Any, ...], list[float]], seed: int, budget: int) -> tuple[float, int]:
    """The search with another seed, on recorded curves: the best Dice, and the epochs that it took."""
    from llm4seg.search.driver import build_scheduler
    from llm4seg.search.searcher import OptunaSearcher

    section = config.override({"search.seed": seed, "search.total_epochs": budget}).search
    suggester, scheduler = OptunaSearcher(section), build_scheduler(section)
    controller: Any = None
    best, spent = 0.0, 0
    for number in range(section.trials):
        trial: Any = SimpleNamespace(trial_id=str(number))
        suggested = suggester.suggest(trial.trial_id)
        if suggested == suggester.FINISHED:
            break
        scheduler.on_trial_add(controller, trial)
        highest, result = 0.0, {}
        for epoch, dice in enumerate(curves[key(suggested["overrides"])], start=1):
            highest = max(highest, dice)
            result = {"epoch": epoch, "best_dice": highest}
            suggester.on_trial_result(trial.trial_id, result)
            if scheduler.on_trial_result(controller, trial, result) == scheduler.STOP:
                break
        suggester.on_trial_complete(trial.trial_id, result)
        best, spent = max(best, highest), spent + result["epoch"]
    return best, spent


def table(rows: list[tuple[str, float, float, str]], grid_best: float, grid_epochs: int) -> Table:
    shown = Table(title="best validation Dice over 30 layers and the adapter's widths")
    for heading in ("search", "best Dice", "points below the grid", "epochs", "share", "minutes"):
        shown.add_column(heading, justify="left" if heading == "search" else "right")
    for name, best, epochs, minutes in rows:
        gap = 100 * (grid_best - best)
        shown.add_row(name, f"{best:.4f}", f"{gap:.2f}", f"{epochs:.0f}", f"{epochs / grid_epochs:.0%}", minutes)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.search",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.search --folder .cache/search-benchmark --epochs 9",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path(".cache/search-benchmark"), help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=9, help="of a trial, at most (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of the images (default: %(default)s)")
    parser.add_argument("--widths", type=int, nargs="*", default=[16, 64, 256], help="default: %(default)s")
    arguments = parser.parse_args()
    points = LAYERS * (1 + len(arguments.widths))
    changes = {
        "search.trials": points,
        "search.epochs": arguments.epochs,
        "search.space": space(arguments.widths),
        "search.asha": {"grace": 1, "reduction": 3},
    }
    config = workspace(arguments.folder, arguments.size, changes)
    config = config.override(PAIRED)
    grid, epochs, seconds = searched(config, "grid", algorithm="grid", asha=None)
    grid_best, grid_epochs = float(grid["val_dice"].max()), int(grid["epochs"].sum())
    rows = [("grid, every point", grid_best, float(grid_epochs), f"{seconds / 60:.1f}")]
    budget = int(SHARE * grid_epochs) - arguments.epochs  # the last trial may begin just before it is used up
    one_by_one = config.override({"cluster.trials": 1})  # who learns from whom must not depend on the clock
    found, _, seconds = searched(one_by_one, "tpe", total_epochs=budget)
    rows.append(("TPE and ASHA", float(found["val_dice"].max()), found["epochs"].sum(), f"{seconds / 60:.1f}"))
    curves = {
        key(row): list(epochs[epochs["number"] == row["number"]].sort_values("epoch")["val_dice"])
        for row in grid.to_dict("records")
    }
    replays = pd.DataFrame([replay(config, curves, seed, budget) for seed in range(1, REPLAYS + 1)])
    rows.append((f"median of {REPLAYS} seeds, replayed", float(replays[0].median()), float(replays[1].median()), ""))
    rows.append((f"worst of {REPLAYS} seeds, replayed", float(replays[0].min()), float(replays[1].max()), ""))
    Console().print(table(rows, grid_best, grid_epochs))


if __name__ == "__main__":
    main()
