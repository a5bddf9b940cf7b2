"""The figures of each way out of what was measured, and their table."""

import statistics
from collections.abc import Mapping

from rich.table import Table

from tests.benchmarks.speed.compare import Measured
from tests.benchmarks.speed.loops import PARTS
from tests.benchmarks.speed.ways import BASE, WAYS

Figures = dict[str, float]
# heading, name of the figure, and its form
COLUMNS = (
    ("images/s", "images_s", ".1f"),
    ("times", "times", ".2f"),
    ("at best", "times_at_best", ".2f"),
    ("spread %", "spread", ".0f"),
    ("step, ms", "step_ms", ".1f"),
    ("times", "step_times", ".2f"),
    ("CPU, ms", "processor_ms", ".1f"),
    ("times", "processor_times", ".2f"),
    ("launches", "launches", ".0f"),
    ("syncs", "syncs", ".1f"),
    ("faults", "faults", ".0f"),
    ("peak MB", "peak_mb", ".0f"),
    ("validate, s", "validate", ".3f"),
    ("save, s", "checkpoint", ".3f"),
)


def figures(found: Mapping[str, Measured], images: int, steps: int) -> dict[str, Figures]:
    """Of each way, medians over its epochs, and ratios to BASE, or to the first way without it."""
    if not found:
        return {}
    base = BASE if BASE in found else next(iter(found))
    rows = {name: _alone(measured, images, steps) for name, measured in found.items()}
    for row in rows.values():
        row["times"] = rows[base]["epoch"] / row["epoch"]
        row["times_at_best"] = rows[base]["fastest"] / row["fastest"]
        row["step_times"] = rows[base]["step_ms"] / row["step_ms"]
        row["processor_times"] = rows[base]["processor_ms"] / row["processor_ms"]
    return rows


def _alone(measured: Measured, images: int, steps: int) -> Figures:
    """A way's own figures: an epoch is training, validation and checkpoint; what a step takes is of training alone."""
    epochs = [sum(one[part] for part in PARTS) for one in measured.epochs]

    def median(key: str) -> float:
        return statistics.median(one[key] for one in measured.epochs)

    epoch = statistics.median(epochs)
    return {
        "images_s": images / epoch,
        "epoch": epoch,
        "fastest": min(epochs),
        "spread": 100 * (max(epochs) - min(epochs)) / epoch,
        "step_ms": 1e3 * median("train") / steps,
        "processor_ms": 1e3 * median("processor") / steps,
        "faults": median("faults") / steps,
        "peak_mb": max(one["peak"] for one in measured.epochs),
        "validate": median("validate"),
        "checkpoint": median("checkpoint"),
        **measured.counts,
    }


def table(title: str, rows: Mapping[str, Figures]) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column("way", no_wrap=True)
    for heading, _, _ in COLUMNS:
        shown.add_column(heading, justify="right")
    for name, row in rows.items():
        shown.add_row(WAYS[name].label, *(f"{row[figure]:{form}}" for _, figure, form in COLUMNS))
    return shown
