"""The chart of an analysis: activation maps on both sides of the block, and densities of the measures over images."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure

from llm4seg.analysis.places import AFTER, BEFORE
from llm4seg.analysis.results import AnalysisResult
from llm4seg.report.charts import GRAY, STYLE, TRAIN, VALIDATION, WIDTH, to_svg
from llm4seg.utils.drawing import fill, show_image

PLACES = {BEFORE: ("encoder", TRAIN), AFTER: ("decoder input", VALIDATION)}
DENSITIES = {  # of the headline class, or of the tokens: what the axis says
    "auroc": "AUROC of the map (chance: 0.5)",
    "iou_area": "IoU of the map at the mask's area",
    "effective_rank": "effective rank exp(H) of the tokens",
    "lsvr": "LSVR of the tokens, nats",
}
MASK = "#E69F00"


def draw_analysis(result: AnalysisResult) -> str:
    """For the best, the median and the worst image the maps before and after the block; and the densities."""
    roles = list(result.summary["examples"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.1 * max(len(roles), 2)), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[1.05, 1], squeeze=False)[0]
        if roles:
            _draw_maps(left, result, roles)
        axes = right.subplots(2, 2).flatten()
        for axis, (measure, words) in zip(axes, DENSITIES.items(), strict=True):
            _draw_density(axis, result, measure, words)
        axes[0].legend(fontsize=7, loc="upper left")
    return to_svg(figure, "analysis", "Activation maps before and after the block, and densities over images")


def _draw_maps(figure: SubFigure, result: AnalysisResult, roles: list[str]) -> None:
    places = [place for place in PLACES if f"{roles[0]}/{place}" in result.examples]
    rows = figure.subplots(len(roles), 1 + len(places), squeeze=False)
    for axes, role in zip(rows, roles, strict=True):
        mask = result.examples[f"{role}/mask"].numpy().astype(int)
        show_image(axes[0], result.examples[f"{role}/image"].numpy(), 1.0)
        fill(axes[0], mask, [MASK])
        example = result.summary["examples"][role]
        axes[0].set_title(f"{role}: {example['case']}", fontsize=7.5)
        cells = result.examples[f"{role}/cells"].numpy() > 0
        for axis, place in zip(axes[1:], places, strict=True):
            values = result.examples[f"{role}/{place}"].numpy()
            axis.imshow(values, cmap="viridis", vmin=0, vmax=1, interpolation="nearest", aspect=_aspect(mask, cells))
            axis.add_collection(LineCollection(cell_edges(cells), colors=MASK, linewidths=1.8))
            axis.set_axis_off()
            axis.set_title(f"{PLACES[place][0]}, AUROC {example[place]:.2f}", fontsize=7.5)


def _aspect(mask: np.ndarray[Any, Any], cells: np.ndarray[Any, Any]) -> float:
    """The height of a token's cell by its width."""
    height, width = (side / count for side, count in zip(mask.shape, cells.shape, strict=True))
    return height / width


def cell_edges(cells: np.ndarray[Any, Any]) -> list[list[tuple[float, float]]]:
    """The edges between cells inside and outside of a mask, and around it at the border, as lines of (x, y)."""
    around, lines = np.pad(cells, 1), []
    for row, column in np.argwhere(around[1:, :-1] != around[:-1, :-1]).tolist():
        lines.append([(column - 1.5, row - 0.5), (column - 0.5, row - 0.5)])
    for row, column in np.argwhere(around[:-1, 1:] != around[:-1, :-1]).tolist():
        lines.append([(column - 0.5, row - 1.5), (column - 0.5, row - 0.5)])
    return lines


def _draw_density(axis: Axes, result: AnalysisResult, measure: str, words: str) -> None:
    """The density of a measure over images at each side of the block, and every image as a dash."""
    table = result.tokens
    if measure in result.classes:
        table = result.classes[result.classes["class"] == result.summary["headline"]]
    for place, (label, hue) in PLACES.items():
        values = table.loc[table["place"] == place, measure].dropna().to_numpy(dtype=float)
        if not len(values):
            continue
        axis.plot(values, np.zeros(len(values)), "|", color=hue, markersize=5)
        _draw_curve(axis, values, label, hue)
    if measure == "auroc":
        axis.axvline(0.5, color=GRAY, linewidth=0.8, linestyle=":")
    axis.set_xlabel(words, fontsize=7.5)
    axis.set_yticks([])
    axis.set_ylabel("density", fontsize=7.5)
    axis.set_ylim(bottom=0)


def _draw_curve(axis: Axes, values: np.ndarray[Any, Any], label: str, hue: str) -> None:
    from scipy.stats import gaussian_kde

    if len(values) < 3 or np.ptp(values) < 1e-9:  # of which there is no density
        axis.axvline(float(values.mean()), color=hue, label=label)
        return
    margin = 0.3 * np.ptp(values)
    low = max(0.0, values.min() - margin)  # no measure is below zero
    places = np.linspace(low, values.max() + margin, 80)
    density = gaussian_kde(values)(places)
    axis.plot(places, density, color=hue, label=label)
    axis.fill_between(places, density, color=hue, alpha=0.15)
