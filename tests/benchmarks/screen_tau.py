"""What the screen of layers is worth: does a measure rank layers as full trainings do?

Kendall's tau of each measure of screen.csv with the score that a study's arms layer-N reach, mean over seeds. Its
interval is by bootstrap: layers are drawn with replacement, and for each of them seeds, after each seed's mean over the
layers is subtracted, since trainings of one seed start from the same CNN. `seeds alone` has the layers as they are.
Of several screens, each by another CNN, a layer's value is the mean of its ranks, and CNNs are drawn, too. The ceiling
is how well one seed's ranking agrees with the mean of the other seeds'.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau, rankdata

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
    ranks_LC: np.ndarray, scores_LR: np.ndarray, draws: int, seed: int, layers_too: bool
) -> tuple[float, float]:
    """The 95 % percentile interval of tau between a measure's mean rank over CNNs and the mean score over runs."""
    random = np.random.default_rng(seed)
    (layers, runs), cnns = scores_LR.shape, ranks_LC.shape[1]
    centered_LR = scores_LR - scores_LR.mean(0)
    taus = []
    for _ in range(draws):
        kept_L = random.integers(layers, size=layers) if layers_too else np.arange(layers)
        runs_LR = random.integers(runs, size=(layers, runs))
        drawn_L = np.take_along_axis(centered_LR, runs_LR, axis=1).mean(1)
        values_L = ranks_LC[:, random.integers(cnns, size=cnns)].mean(1)
        taus.append(tau(values_L[kept_L], drawn_L[kept_L]))  # a layer twice is tied in both, which tau-b leaves out
    low, high = np.nanpercentile(taus, [2.5, 97.5])
    return float(low), float(high)


def ceiling(scores_LR: np.ndarray) -> float:
    """The mean tau of one run's ranking with that of the others' mean; NaN of a single run."""
    runs = scores_LR.shape[1]
    if runs < 2:
        return math.nan
    return float(np.mean([tau(scores_LR[:, run], np.delete(scores_LR, run, axis=1).mean(1)) for run in range(runs)]))


def compared(screens: Sequence[pd.DataFrame], scores: pd.DataFrame, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A row per measure: tau of each screen, tau of their mean rank with p, both intervals, seconds a layer."""
    known = [_of_layers(screen, scores.index) for screen in screens]
    measured = scores.to_numpy()
    rows = []
    for name in MEASURES:
        ranks = np.stack([rankdata(one[name]) for one in known], axis=1)
        low, high = bootstrap(ranks, measured, draws, seed, layers_too=True)
        of_seeds = bootstrap(ranks, measured, draws, seed, layers_too=False)
        statistic, p = kendalltau(ranks.mean(1), measured.mean(1))
        row = {"measure": name, "tau": statistic, "p": p, "low": low, "high": high}
        row["each"] = [tau(one, measured.mean(1)) for one in ranks.T]
        seconds = np.mean([one[f"{name}_seconds"] for one in known])
        rows.append(row | {"low_seeds": of_seeds[0], "high_seeds": of_seeds[1], "seconds": seconds})
    return pd.DataFrame(rows)


def _of_layers(screen: pd.DataFrame, layers: pd.Index) -> pd.DataFrame:
    """A screen's rows of the study's layers, in their order. Raises InputError where one is missing."""
    table = screen[screen["layer"].astype(str) != CNN].assign(layer=lambda table: table["layer"].astype(int))
    known = table.set_index("layer").reindex(layers)
    if known[MEASURES[0]].isna().any():
        raise InputError(f"screen.csv: found no layer {known.index[known[MEASURES[0]].isna()][0]}, an arm of the study")
    return known


def shown(rows: pd.DataFrame, scores: pd.DataFrame, metric: str) -> Table:
    """The table of all measures."""
    layers, runs = scores.shape
    spread = 100 * (scores.mean(axis=1).max() - scores.mean(axis=1).min())
    title = f"{layers} layers, {runs} runs each; {metric} by layer spreads over {spread:.2f} points; "
    table = Table(title=title + f"one run's ranking with the others': tau {ceiling(scores.to_numpy()):.2f}")
    for heading in ("measure", "of each CNN", "tau", "p", "95 % interval", "seeds alone", "seconds a layer"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for row in rows.to_dict("records"):
        interval, of_seeds = (
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"{row['low_seeds']:.2f} to {row['high_seeds']:.2f}",
        )
        each = ", ".join(f"{one:.2f}" for one in row["each"])
        cells = f"{row['tau']:.2f}", f"{row['p']:.3f}", interval, of_seeds, f"{row['seconds']:.1f}"
        table.add_row(row["measure"], each, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.screen_tau",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.screen_tau outputs/study/study.csv outputs/screen.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, help="study.csv of a study with arms named layer-N")
    parser.add_argument("screens", type=Path, nargs="+", help="screen.csv of `python -m pipelines.screen`, one a CNN")
    parser.add_argument("--metric", default="dice", help="a column of study.csv (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap (default: %(default)s)")
    arguments = parser.parse_args()
    study = read_table(arguments.study, "arm", "repeat", "fold", arguments.metric)
    columns = [column for name in MEASURES for column in (name, f"{name}_seconds")]
    screens = [read_table(path, "layer", *columns) for path in arguments.screens]
    scores = scores_by_layer(study, arguments.metric)
    Console().print(shown(compared(screens, scores, arguments.draws), scores, arguments.metric))


if __name__ == "__main__":
    main()
