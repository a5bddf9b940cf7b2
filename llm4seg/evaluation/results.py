"""Outputs of `evaluate`: a row per case (and volume) and class, overlays of the best, the median and the worst case."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm4seg.evaluation.confusion import Confusion
from llm4seg.objectives.metrics import Row
from llm4seg.utils.errors import InputError
from llm4seg.utils.tables import read_table

CASES, VOLUMES, OVERLAYS = "cases.csv", "volumes.csv", "overlays"
ROLES = ("best", "median", "worst")
THRESHOLD_METRICS = ("dice", "iou")


@dataclass(frozen=True)
class EvaluationResult:
    """`rows`: per case and class, with case, group, class, metrics, counts and sizes; and their summary.

    `volumes`: the same per volume, its name as `case`; empty where cases are no slices, or volumes are not whole.
    """

    rows: list[Row]
    threshold_baseline: list[Row]  # of the same cases and classes: Dice, IoU and counts
    volumes: list[Row]
    volume_baseline: list[Row]
    summary: dict[str, Any]
    confusion: Confusion


def write_cases(folder: Path, result: EvaluationResult) -> None:
    """Write cases.csv: a row per case and class, the threshold baseline beside the model; NaN is an empty field. And
    volumes.csv, with the same columns, where there are volumes; and confusion.csv.
    """
    result.confusion.write(folder)
    _write(folder / CASES, result.rows, result.threshold_baseline)
    if result.volumes:
        _write(folder / VOLUMES, result.volumes, result.volume_baseline)


def _write(path: Path, rows: list[Row], threshold_baseline: list[Row]) -> None:
    table = pd.DataFrame(rows)
    for metric in THRESHOLD_METRICS:
        table[f"baseline_{metric}"] = [row[metric] for row in threshold_baseline]
    table.to_csv(path, index=False, float_format="%.6g")


def read_cases(folder: Path) -> pd.DataFrame:
    """Read cases.csv. Raises InputError naming the file."""
    return _read(folder / CASES)


def read_volumes(folder: Path) -> pd.DataFrame:
    """Read volumes.csv, which is there where metrics.json has `volumes`. Raises InputError naming the file."""
    return _read(folder / VOLUMES)


def _read(path: Path) -> pd.DataFrame:
    return read_table(path, "case", "class", "dice", "baseline_dice")


def read_overlays(folder: Path) -> dict[str, bytes]:
    """The overlays as PNG by role, from the best to the worst case. Raises InputError when there is none."""
    paths = {role: folder / OVERLAYS / f"{role}.png" for role in ROLES}
    overlays = {role: path.read_bytes() for role, path in paths.items() if path.is_file()}
    if not overlays:
        raise InputError(f"{folder / OVERLAYS}: found no picture; run the stage that makes it (`dvc repro evaluate`)")
    return overlays
