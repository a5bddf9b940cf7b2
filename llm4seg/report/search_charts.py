"""Charts of a search: metric against layer, slices, learning curves, importance, Pareto front."""

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from llm4seg.config.schema import LogUniform
from llm4seg.report.charts import GRAY, STYLE, TRAIN, VALIDATION, WIDTH, to_svg
from llm4seg.search.results import SearchResult
from llm4seg.utils.drawing import colors

LAYER = "model.llm.layer"
MOST_LINES = 6  # variants in the chart of layers, a color for each


def draw_search(result: SearchResult) -> dict[str, str]:
    """All charts that the trials allow, as SVG by name."""
    drawn: dict[str, str | None] = {
        "layers": by_layer(result),
        "slices": slices(result),
        "curves": curves(result),
        "importance": shares(result),
        "pareto": front(result),
    }
    return {name: svg for name, svg in drawn.items() if svg is not None}


def _chart(name: str, description: str, height: float, draw: Callable[[Figure], None]) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
    return to_svg(figure, f"search-{name}", description)


def by_layer(result: SearchResult) -> str | None:
    """The best Dice at each layer, a line per variant (the other choices); horizontals: variants without a layer."""
    known = result.known
    if LAYER not in known or pd.to_numeric(known[LAYER], errors="coerce").isna().sum() > known[LAYER].isna().sum():
        return None
    known = known.assign(**{LAYER: pd.to_numeric(known[LAYER])})

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        lines = list(variants(result, known).items())[:MOST_LINES]
        for (name, rows), hue in zip(lines, colors(len(lines)), strict=True):
            if rows[LAYER].isna().all():
                axis.axhline(rows["val_dice"].max(), color=hue, linestyle="--", label=name)
                continue
            best = rows.groupby(LAYER)["val_dice"].max()
            axis.plot(best.index, best, "o-", color=hue, label=name, markersize=4)
            early = rows[rows["status"] == "stopped"]
            axis.scatter(early[LAYER], early["val_dice"], s=12, facecolors="white", edgecolors=hue, zorder=3)
        axis.set(xlabel="layer, counted from 0", ylabel="best validation Dice")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=2)

    return _chart("layers", "The best validation Dice at each layer, a line a variant", 3.2, draw)


def variants(result: SearchResult, known: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Trials by the values of all listed parameters but the layer; the most frequent variant first."""
    lists = [name for name, one in result.section.space.items() if one.values is not None and name != LAYER]
    if not lists:
        return {"trials": known}
    named = known[lists].apply(
        lambda row: ", ".join(f"{name.rsplit('.', 1)[-1]} {_word(row[name])}" for name in lists if pd.notna(row[name])),
        axis=1,
    )
    order = named.value_counts(sort=True).index
    return {str(name): known[named == name] for name in order}


def _word(value: Any) -> str:
    """A value in words; integers are floats in a column where some trials have none."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def slices(result: SearchResult) -> str | None:
    """The Dice of every trial against each parameter."""
    names = [name for name in result.section.space if result.known[name].notna().any()]
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)

    def draw(figure: Figure) -> None:
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for axis, name in zip(axes, names, strict=False):
            _slice(axis, name, result)
        for axis in axes[len(names) :]:
            axis.set_axis_off()

    return _chart("slices", "The validation Dice of every trial against each parameter", 2.4 * rows, draw)


def _slice(axis: Axes, name: str, result: SearchResult) -> None:
    known = result.known.dropna(subset=name)
    for status, filled in (("finished", True), ("stopped", False)):
        rows = known[known["status"] == status]
        values: Any = rows[name] if pd.api.types.is_numeric_dtype(known[name]) else rows[name].astype(str)
        axis.scatter(values, rows["val_dice"], s=18, facecolors=TRAIN if filled else "none", edgecolors=TRAIN)
    if isinstance(result.section.space[name], LogUniform):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(LogFormatter())  # the default one writes powers as mathtext
        axis.xaxis.set_minor_formatter(LogFormatter())
    axis.set(xlabel=name, ylabel="val Dice")


def curves(result: SearchResult) -> str:
    """Validation Dice by epoch of every trial; a ring ends a trial that was stopped early."""
    best = int(result.known["number"].iloc[result.known["val_dice"].argmax()])
    stopped = set(result.trials["number"][result.trials["status"] == "stopped"])

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for number, rows in result.epochs.groupby("number"):
            hue, width, above = (VALIDATION, 2.2, 3) if number == best else (GRAY, 0.9, 2)
            axis.plot(rows["epoch"], rows["val_dice"], color=hue, linewidth=width, zorder=above)
            if number in stopped:
                last = rows.iloc[-1]
                axis.plot(last["epoch"], last["val_dice"], "o", markerfacecolor="none", color=hue, markersize=4)
        axis.set(xlabel="epoch", ylabel="validation Dice")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))

    return _chart("curves", "Learning curves of all trials; a ring ends those that were stopped early", 3.2, draw)


def shares(result: SearchResult) -> str | None:
    """The importance of each parameter, by PED-ANOVA."""
    if not result.importance:
        return None
    names = list(result.importance)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.barh(names, list(result.importance.values()), color=TRAIN)
        axis.set(xlabel="importance (PED-ANOVA)", xlim=(0, 1))
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")

    return _chart(
        "importance", "How much each parameter matters for the validation Dice", 0.7 + 0.35 * len(names), draw
    )


def front(result: SearchResult) -> str | None:
    """Dice against each other objective, with the Pareto front."""
    others = result.section.objectives[1:]
    if not others:
        return None

    def draw(figure: Figure) -> None:
        for axis, name in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
            best = result.known["pareto"]
            axis.scatter(result.known[name], result.known["val_dice"], s=16, color=GRAY)
            chosen = result.known[best].sort_values(name)
            axis.plot(chosen[name], chosen["val_dice"], "o", color=VALIDATION)
            axis.set(xlabel={"parameters": "trained parameters", "latency": "ms an image"}[name], ylabel="val Dice")

    return _chart("pareto", "Dice against the other objectives, with the trials that no other one beats", 3.0, draw)
