"""Charts of training, cases and split as SVG for an HTML page; equal data give equal bytes."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llm4seg.data.split import Split
from llm4seg.utils.drawing import PLAIN_TEXT, colors

TRAIN, VALIDATION, GRAY, INK = "#0072B2", "#D55E00", "#8A8F98", "#24292F"
PARTS = {"train": "#0072B2", "val": "#E69F00", "test": "#CC3311", "left_out": "#D9DCE1"}
WIDTH = 9.6  # inches; the page scales it to its own width
MOST_POINTS = 300  # of a class; with more, only the box is drawn

STYLE: dict[Any, Any] = {
    **PLAIN_TEXT,
    "font.size": 8.5,
    "font.family": "sans-serif",
    "svg.fonttype": "none",  # text stays text, in the page's font
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8A8F98",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E8EAED",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def to_svg(figure: Figure, name: str, description: str) -> str:
    """An <svg> element that scales with the page. `name` makes its ids unique on the page."""
    buffer = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to them, and each chart has the same ones
    return text.replace("xlink:href", "href").replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)


def as_file(svg: str) -> str:
    """A chart as a standalone SVG file, in which <svg> needs its namespace."""
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def training_curves(history: pd.DataFrame, kept: int | None) -> str:
    """Loss and validation Dice by epoch; `kept` is the epoch whose weights were kept."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        validated = history.dropna(subset="val_dice")  # an empty cell would break the line
        marker = "o" if len(validated) < 3 else None
        left.plot(history["epoch"], history["train_loss"], color=TRAIN, marker=marker, label="training")
        left.plot(validated["epoch"], validated["val_loss"], color=VALIDATION, marker=marker, label="validation")
        left.set(title="Loss", xlabel="epoch", ylim=(0, None))
        left.legend()
        right.plot(validated["epoch"], validated["val_dice"], color=VALIDATION, marker=marker)
        right.set(title="Mean Dice on the validation part", xlabel="epoch", ylim=(0, 1.1), yticks=np.linspace(0, 1, 6))
        for axis in (left, right):
            axis.xaxis.get_major_locator().set_params(integer=True)
        if kept is not None:
            _mark(right, kept, float(history.set_index("epoch")["val_dice"][kept]))
    return to_svg(figure, "training", "Curves of the loss and of the validation Dice over the epochs")


def _mark(axis: Axes, epoch: int, dice: float) -> None:
    """Mark the epoch whose weights were kept."""
    axis.plot([epoch], [dice], "o", color=VALIDATION, markersize=6)
    side = "left" if epoch < axis.get_xlim()[1] / 2 else "right"
    axis.annotate(f"kept: epoch {epoch}, {dice:.3f}", (epoch, dice), (0, 8), textcoords="offset points", ha=side)


def dice_by_case(cases: pd.DataFrame, classes: Sequence[str], of: str = "case") -> str:
    """For each class the Dice of every case (or volume: `of`), with a box, above the threshold baseline's."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.55 + 0.72 * len(classes)), layout="constrained")
        axis = figure.subplots()
        for place, (name, hue) in enumerate(zip(classes, colors(len(classes)), strict=True)):
            rows = cases[cases["class"] == name]
            _distribution(axis, rows["dice"].dropna().to_numpy(), place - 0.17, hue)
            _distribution(axis, rows["baseline_dice"].dropna().to_numpy(), place + 0.2, GRAY)
        axis.set_yticks(range(len(classes)), list(classes))
        axis.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.5, -0.5), xlabel=f"Dice of a {of}")
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
    return to_svg(figure, f"{of}s", f"For each class the Dice of every test {of}, and that of the intensity threshold")


def _distribution(axis: Axes, values: np.ndarray, place: float, hue: str) -> None:
    """A box with every value as a dot on it."""
    if not len(values):
        return
    axis.boxplot(
        values,
        positions=[place],
        orientation="horizontal",
        widths=0.26,
        showfliers=False,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": hue, "alpha": 0.25, "edgecolor": "none"},
        medianprops={"color": INK, "linewidth": 1.6},
        whiskerprops={"color": hue},
        capprops={"color": hue},
    )
    if len(values) <= MOST_POINTS:
        spread = np.random.default_rng(0).uniform(-0.1, 0.1, len(values))
        axis.scatter(values, place + spread, s=11, color=hue, edgecolors="white", linewidths=0.4, zorder=3)


def split_strips(split: Split, cases: dict[str, Any]) -> str | None:
    """The parts of the split along each volume; None when cases are no slices, or of more than 12 volumes."""
    volumes: dict[str, list[tuple[int, str]]] = {}
    for part in PARTS:
        for case_id in getattr(split, part):
            case = cases[case_id]
            if case.volume is not None and case.position is not None:
                volumes.setdefault(case.volume, []).append((case.position, part))
    if not 1 <= len(volumes) <= 12:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.55 + 0.32 * len(volumes)), layout="constrained")
        axis = figure.subplots()
        for place, slices in enumerate(volumes.values()):
            for part, hue in PARTS.items():
                spans = [(position, 1) for position, its_part in slices if its_part == part]
                axis.broken_barh(spans, (place - 0.36, 0.72), facecolors=hue, linewidth=0, antialiased=False)
        axis.set_yticks(range(len(volumes)), list(volumes))
        axis.set(xlabel="slice", ylim=(len(volumes) - 0.5, -0.5))
        axis.grid(visible=False)
        axis.margins(x=0.005)
    return to_svg(figure, "split", "For each volume, which slices are in which part of the split")
