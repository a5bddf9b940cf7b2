"""Contact sheet: cases of a prepared dataset with their masks drawn on, and what is in the dataset, as one PNG."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm4seg.data.prepared import Case, Prepared
from llm4seg.utils.drawing import PLAIN_TEXT, colors, fill, fullest_slice, outline, show_image
from llm4seg.utils.files import replacing
from llm4seg.utils.text import elided, in_short

COLUMNS, MOST_CASES = 4, 12
# inches; a panel is an image with its titles above
WIDTH, MARGIN, GAP, LINE = 12.0, 0.3, 0.25, 0.22
PANEL, TITLES = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS, 2 * LINE + 0.12
DPI = 120
QUIET, WARNING, TIMES = "#57606a", "#9a5b00", " \u00d7 "


def write_contact_sheet(path: Path, data: Prepared) -> None:
    """Write the sheet, atomically; equal data give equal bytes. Of volumes, the slice with most labels is drawn."""
    import matplotlib as mpl  # here: the import takes a second
    from matplotlib.figure import Figure

    cases = choose_cases(list(data.cases.values()), data.classes)
    notices = [line for notice in in_short(data.notices) for line in textwrap.wrap(notice, 155)]
    blocks = 1 if len(data.classes) < 6 else 2  # of the table of classes, side by side
    head = MARGIN + LINE * (3.2 + math.ceil(len(data.classes) / blocks))
    tall = PANEL * min(max(_height_by_width(case) for case in cases), 1.4)
    panels = math.ceil(len(cases) / COLUMNS) * (TITLES + tall + GAP) - GAP
    with mpl.rc_context({**PLAIN_TEXT, "font.size": 9.5}):
        figure = Figure(figsize=(WIDTH, head + panels + MARGIN + LINE * len(notices)), dpi=DPI)
        _write_head(figure, data, blocks)
        for place, case in enumerate(cases):
            _draw_case(_panel(figure, place, head, tall), data, case)
        for line, notice in enumerate(notices):
            _write(figure, MARGIN, head + panels + LINE * (line + 1.2), notice, color=WARNING)
        with replacing(path) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None})


def choose_cases(cases: Sequence[Case], classes: Sequence[str]) -> list[Case]:
    """At most MOST_CASES, in the dataset's order: spread evenly, labeled ones first, and each class in one at least."""
    labeled = [case for case in cases if any(case.pixels.values())]
    blank = [case for case in cases if not any(case.pixels.values())]
    added: list[Case] = []
    while True:
        spread = _evenly([case for case in labeled if case not in added], MOST_CASES - len(added))
        chosen = [*added, *spread]
        missing = [name for name in classes if not any(case.pixels[name] for case in chosen)]
        if not missing or len(added) == MOST_CASES:
            chosen += _evenly(blank, MOST_CASES - len(chosen))
            return [case for case in cases if case in chosen]
        with_it = [case for case in labeled if case.pixels[missing[0]]]
        added.append(with_it[len(with_it) // 2])


def _evenly(cases: Sequence[Case], count: int) -> list[Case]:
    """At most `count` of the cases: the middle ones of as many equal parts."""
    count = min(count, len(cases))
    return [cases[(2 * place + 1) * len(cases) // (2 * count)] for place in range(count)]


def _height_by_width(case: Case) -> float:
    return case.shape[0] * case.spacing[0] / (case.shape[1] * case.spacing[1])


def _write(figure: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Write a line, its baseline `x` and `y` inches from the upper left corner."""
    figure.text(x / WIDTH, 1 - y / figure.get_figheight(), text, **style)


def _panel(figure: Any, place: int, head: float, tall: float) -> Any:
    """Axes of an image, `tall` inches high, below the head."""
    row, column = divmod(place, COLUMNS)
    left, bottom = MARGIN + column * (PANEL + GAP), head + (row + 1) * (TITLES + tall) + row * GAP
    height = figure.get_figheight()
    return figure.add_axes((left / WIDTH, 1 - bottom / height, PANEL / WIDTH, tall / height))


def _write_head(figure: Any, data: Prepared, blocks: int) -> None:
    """The dataset's name, and a table of its classes, which is the legend, too."""
    cases = list(data.cases.values())
    first = MARGIN + 0.6 * LINE
    _write(figure, MARGIN, first, elided(data.name, 50), fontsize=15, fontweight="bold")
    _write(figure, WIDTH - MARGIN, first, _facts(data), ha="right", color=QUIET)
    width, lines = min((WIDTH - 2 * MARGIN) / blocks, 7.0), math.ceil(len(data.classes) / blocks)
    for place, (name, hue) in enumerate(zip(data.classes, colors(len(data.classes)), strict=True)):
        block, line = divmod(place, lines)
        left, y = MARGIN + block * width, MARGIN + LINE * (line + 3)
        pixels = [case.pixels[name] for case in cases]
        counts = [sum(count > 0 for count in pixels), sum(pixels), sum(case.grid_pixels[name] for case in cases)]
        _write(figure, left, y, "\u25a0", color=hue, fontsize=13)
        _write(figure, left + 0.22, y, elided(name, 34))
        for share, heading, count in zip((0.58, 0.78, 0.96), ("cases", "pixels", "on the grid"), counts, strict=True):
            _write(figure, left + width * share, y, f"{count:,}", ha="right")
            if line == 0:
                _write(figure, left + width * share, y - LINE, heading, ha="right", color=QUIET)


def _facts(data: Prepared) -> str:
    groups = len({case.group for case in data.cases.values()})
    parts = [f"{len(data.cases):,} cases in {groups:,} {'groups' if groups > 1 else 'group'} (patient or volume)"]
    if data.spacing is None:
        parts.append(f"the network's grid is {TIMES.join(map(str, data.size))}")
    else:
        parts.append(f"the network's grid is at {TIMES.join(f'{step:.3g}' for step in data.spacing)} mm")
    if data.spatial_dims == 3:
        parts.append("shown is the slice with most labels")
    return "; ".join(parts)


def _draw_case(axis: Any, data: Prepared, case: Case) -> None:
    image_CS, labels_S = (tensor.numpy() for tensor in data.original(case.id))
    image_CHW, labels_HW = fullest_slice(image_CS, data.scheme.drawn(labels_S))
    hues = colors(len(data.classes))
    show_image(axis, image_CHW, case.spacing[0] / case.spacing[1])
    axis.set_anchor("NW")
    fill(axis, labels_HW, hues, opacity=0.35)
    outline(axis, labels_HW, hues, width=1.0)
    spacing = TIMES.join(f"{step:.3g}" for step in case.spacing)
    known = f"{spacing} mm" if case.unit == "mm" else "pixel size not known"
    size = f"{TIMES.join(map(str, case.shape))} px, {known}"
    above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axis.annotate(elided(case.id, 28), (0, 1), (0, 17), fontweight="bold", **above)
    axis.annotate(size, (0, 1), (0, 5), fontsize=8.5, color=QUIET, **above)
