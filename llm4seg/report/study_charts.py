"""Charts of a study: the difference of each arm from each reference, and paired cases."""

from itertools import product

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from llm4seg.report.charts import GRAY, INK, STYLE, TRAIN, VALIDATION, WIDTH, to_svg
from llm4seg.study.pairs import class_scores, pairs
from llm4seg.study.results import StudyResult
from llm4seg.study.verdict import METRICS, scale

SIDE = 1.65  # inches of a panel


def draw_study(result: StudyResult) -> dict[str, str]:
    """The forest plot, and each case under two arms, as SVG by name; nothing where no arms are compared."""
    if result.comparisons.empty:
        return {}
    metric = result.summary["metric"]
    return {
        "forest": forest(result.comparisons, metric, 1 - result.summary["confidence"]),
        "paired": paired(result.scores, result.comparisons, metric),
    }


def forest(compared: pd.DataFrame, metric: str, alpha: float) -> str:
    """The difference of each arm from each reference with its interval; thin: the bootstrap's over cases."""
    shown = scale(metric)
    labels = [f"{row.arm} against {row.reference}" for row in compared.itertuples()]
    if compared["data"].nunique() > 1:
        labels = [f"{label}, {data}" for label, data in zip(labels, compared["data"], strict=True)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 + 0.26 * len(compared)), layout="constrained")
        axis = figure.subplots()
        axis.axvline(0, color=GRAY, linewidth=1)
        for place, row in enumerate(compared.to_dict("records")):
            hue = VALIDATION if row["p_holm"] < alpha else TRAIN
            names = ("bootstrap_low", "bootstrap_high", "low", "high", "difference")
            thin_low, thin_high, low, high, middle = (shown.factor * row[name] for name in names)
            axis.plot([thin_low, thin_high], [place, place], color=hue, linewidth=0.8)
            axis.plot([low, high], [place, place], color=hue, linewidth=3, alpha=0.55)
            axis.plot([middle], [place], "o", color=hue, markersize=5)
        axis.set_yticks(range(len(labels)), labels)
        axis.set(ylim=(len(labels) - 0.5, -0.5), xlabel=f"difference in {METRICS[metric]}, {shown.unit}")
        axis.grid(visible=False, axis="y")
    return to_svg(figure, "forest", "The difference of each arm from each reference, with its interval")


def paired(table: pd.DataFrame, compared: pd.DataFrame, metric: str) -> str:
    """A panel per arm and reference: each case under both, its mean over runs; above the diagonal the arm is better."""
    scores = class_scores(table, metric)
    own = scores[scores["data"] == scores["data"].iloc[0]]
    arms, references = compared["arm"].unique(), compared["reference"].unique()
    ends = (float(own["score"].min()), 0.0) if metric == "log_likelihood" else (0.0, 1.0)
    ticks = [ends[0], sum(ends) / 2, ends[1]]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(SIDE * len(arms), SIDE * len(references) + 0.3), layout="constrained")
        axes = figure.subplots(len(references), len(arms), squeeze=False, sharex=True, sharey=True)
        for (row, reference), (column, arm) in product(enumerate(references), enumerate(arms)):
            axis, both = axes[row, column], pairs(own, arm, reference)
            axis.set_aspect("equal")
            if arm == reference or both.empty:
                axis.set_axis_off()
                continue
            means = both.groupby("case")[["score_reference", "score"]].mean()
            axis.plot(ends, ends, color=GRAY, linewidth=0.8)
            axis.scatter(means["score_reference"], means["score"], s=9, color=TRAIN, edgecolors="white", linewidths=0.3)
            axis.set(xlim=ends, ylim=ends, xticks=ticks, yticks=ticks)
            axis.set_title(arm, color=INK)
            axis.set_xlabel(f"{METRICS[metric]} of {reference}")
    return to_svg(figure, "paired", "For each arm and reference, every case under both, its mean over runs")
