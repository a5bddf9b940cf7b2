"""What the screen of layers is worth: does a measure rank layers as full trainings do?

Kendall's tau of each measure of screen.csv with the score that a study's arms layer-N reach, mean over seeds. Its
interval is by bootstrap: layers are drawn with replacement, and for each of them seeds, after each seed's mean over the
layers is subtracted, since trainings of one seed start from the same CNN. `seeds alone` has the layers as they are.
The ceiling is how well one seed's ranking agrees with the mean of the other seeds'.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from llm4seg.analysis.screen import CNN, MEASURES
from llm4seg.utils.errors import InputError
from llm4seg.utils.tables import read_table

ARM = "layer-"


def scores_by_layer(study: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean score over cases and classes: a row per layer, a column per run (its repeat and fold).

    Raises InputError where there are fewer than three layers, or a layer lacks a run that another has.
    """
    arms = study[study["arm"].str.fullmatch(rf"{ARM}\d+")]
    run = [f"{repeat}/{fold:g}" for repeat, fold in zip(arms["repeat"], arms["fold"], strict=True)]  # nan: no folds
    table = arms.assign(layer=arms["arm"].str.removeprefix(ARM).astype(int), run=run)
    scores = table.pivot_table(index="layer", columns="run", values=metric, aggfunc="mean")
    if len(scores) < 3:
        raise InputError(f"study.csv: found {len(scores)} arms named {ARM}N, allowed: 3 or more")
    if scores.isna().any(axis=None):
        lacking = scores.index[scores.isna().any(axis=1)][0]
        raise InputError(f"study.csv: found no score of {ARM}{lacking} in a run of other layers; let the study finish")
    return scores


def tau(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's tau-b; NaN where one of both is constant."""
    return float(kendalltau(one, other).statistic)


def bootstrap(
    values_L: np.ndarray, scores_LR: np.ndarray, draws: int, seed: int, layers_too: bool
) -> tuple[float, float]:
    """The 95 % percentile interval of tau between a measure and the mean score over runs."""
    random = np.random.default_rng(seed)
    layers, runs = scores_LR.shape
    centered_LR = scores_LR - scores_LR.mean(0)
    taus = []
    for _ in range(draws):
        kept_L = random.integers(layers, size=layers) if layers_too else np.arange(layers)
        runs_LR = random.integers(runs, size=(layers, runs))
        drawn_L = np.take_along_axis(centered_LR, runs_LR, axis=1).mean(1)
        taus.append(tau(values_L[kept_L], drawn_L[kept_L]))  # a layer twice is tied in both, which tau-b leaves out
    low, high = np.nanpercentile(taus, [2.5, 97.5])
    return float(low), float(high)


def ceiling(scores_LR: np.ndarray) -> float:
    """The mean tau of one run's ranking with that of the others' mean; NaN of a single run."""
    runs = scores_LR.shape[1]
    if runs < 2:
        return math.nan
    return float(np.mean([tau(scores_LR[:, run], np.delete(scores_LR, run, axis=1).mean(1)) for run in range(runs)]))


def compared(screen: pd.DataFrame, scores: pd.DataFrame, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A row per measure: tau, its p, both intervals, and the measure's seconds a layer."""
    layers = screen[screen["layer"].astype(str) != CNN].assign(layer=lambda table: table["layer"].astype(int))
    known = layers.set_index("layer").reindex(scores.index)
    if known[MEASURES[0]].isna().any():
        raise InputError(f"screen.csv: found no layer {known.index[known[MEASURES[0]].isna()][0]}, an arm of the study")
    rows = []
    for name in MEASURES:
        values, measured = known[name].to_numpy(), scores.to_numpy()
        low, high = bootstrap(values, measured, draws, seed, layers_too=True)
        of_seeds = bootstrap(values, measured, draws, seed, layers_too=False)
        statistic, p = kendalltau(values, measured.mean(1))
        row = {"measure": name, "tau": statistic, "p": p, "low": low, "high": high}
        row |= {"low_seeds": of_seeds[0], "high_seeds": of_seeds[1], "seconds": known[f"{name}_seconds"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def shown(rows: pd.DataFrame, scores: pd.DataFrame, metric: str) -> Table:
    """The table of all measures."""
    layers, runs = scores.shape
    spread = 100 * (scores.mean(axis=1).max() - scores.mean(axis=1).min())
    title = f"{layers} layers, {runs} runs each; {metric} by layer spreads over {spread:.2f} points; "
    table = Table(title=title + f"one run's ranking with the others': tau {ceiling(scores.to_numpy()):.2f}")
    for heading in ("measure", "tau", "p", "95 % interval", "seeds alone", "seconds a layer"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for row in rows.to_dict("records"):
        interval, of_seeds = (
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"{row['low_seeds']:.2f} to {row['high_seeds']:.2f}",
        )
        cells = row["measure"], f"{row['tau']:.2f}", f"{row['p']:.3f}", interval, of_seeds, f"{row['seconds']:.1f}"
        table.add_row(*cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.screen_tau",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.screen_tau outputs/study/study.csv outputs/screen.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, help="study.csv of a study with arms named layer-N")
    parser.add_argument("screen", type=Path, help="screen.csv of `python -m pipelines.screen`")
    parser.add_argument("--metric", default="dice", help="a column of study.csv (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap (default: %(default)s)")
    arguments = parser.parse_args()
    study = read_table(arguments.study, "arm", "repeat", "fold", arguments.metric)
    columns = [column for name in MEASURES for column in (name, f"{name}_seconds")]
    screen = read_table(arguments.screen, "layer", *columns)
    scores = scores_by_layer(study, arguments.metric)
    Console().print(shown(compared(screen, scores, arguments.draws), scores, arguments.metric))


if __name__ == "__main__":
    main()
