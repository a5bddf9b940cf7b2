"""Outputs of `evaluate`: a row per case and class, and overlays of the best, the median and the worst case."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm4seg.objectives.metrics import Row
from llm4seg.utils.errors import InputError
from llm4seg.utils.tables import read_table

CASES, OVERLAYS = "cases.csv", "overlays"
ROLES = ("best", "median", "worst")
THRESHOLD_METRICS = ("dice", "iou")


@dataclass(frozen=True)
class EvaluationResult:
    """`rows`: per case and class, with case, group, class, metrics, counts and sizes; and their summary."""

    rows: list[Row]
    threshold_baseline: list[Row]  # of the same cases and classes: Dice, IoU and counts
    summary: dict[str, Any]


def write_cases(folder: Path, result: EvaluationResult) -> None:
    """Write cases.csv: a row per case and class, the threshold baseline beside the model; NaN is an empty field."""
    table = pd.DataFrame(result.rows)
    for metric in THRESHOLD_METRICS:
        table[f"baseline_{metric}"] = [row[metric] for row in result.threshold_baseline]
    table.to_csv(folder / CASES, index=False, float_format="%.6g")


def read_cases(folder: Path) -> pd.DataFrame:
    """Read cases.csv. Raises InputError naming the file."""
    return read_table(folder / CASES, "case", "class", "dice", "baseline_dice")


def read_overlays(folder: Path) -> dict[str, bytes]:
    """The overlays as PNG by role, from the best to the worst case. Raises InputError when there is none."""
    paths = {role: folder / OVERLAYS / f"{role}.png" for role in ROLES}
    overlays = {role: path.read_bytes() for role, path in paths.items() if path.is_file()}
    if not overlays:
        raise InputError(f"{folder / OVERLAYS}: found no picture; run the stage that makes it (`dvc repro evaluate`)")
    return overlays
