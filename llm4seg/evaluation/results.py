"""What `evaluate` leaves on disk: a row a case and class, and overlays of the best, the median and the worst case."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm4seg.objectives.metrics import Row
from llm4seg.utils.errors import InputError
from llm4seg.utils.tables import read_table

CASES, OVERLAYS = "cases.csv", "overlays"
ROLES = ("best", "median", "worst")
BASELINE_METRICS = ("dice", "iou")


@dataclass(frozen=True)
class EvaluationResult:
    """A row a case and class: case, group, class, metrics, counts and sizes; and their summary."""

    rows: list[Row]
    baseline: list[Row]  # the same cases and classes, segmented by intensity: Dice, IoU and counts
    summary: dict[str, Any]


def write_cases(folder: Path, result: EvaluationResult) -> None:
    """Write a row a case and class as CSV, the threshold baseline beside the model; NaN becomes an empty field."""
    table = pd.DataFrame(result.rows)
    for metric in BASELINE_METRICS:
        table[f"baseline_{metric}"] = [row[metric] for row in result.baseline]
    table.to_csv(folder / CASES, index=False, float_format="%.6g")


def read_cases(folder: Path) -> pd.DataFrame:
    """Read it back. Raises InputError naming the file."""
    return read_table(folder / CASES, "case", "class", "dice", "baseline_dice")


def read_overlays(folder: Path) -> dict[str, bytes]:
    """The overlays as PNG by role, the best case's first. Raises InputError when there is none."""
    pictures = {role: folder / OVERLAYS / f"{role}.png" for role in ROLES}
    found = {role: path.read_bytes() for role, path in pictures.items() if path.is_file()}
    if not found:
        raise InputError(f"{folder / OVERLAYS}: found no picture; run the stage that makes it (`dvc repro evaluate`)")
    return found
