"""A comparison in one plain sentence."""

from collections.abc import Mapping
from typing import Any

UNITS = {"group": "patient", "case": "case"}
METRICS = {"dice": "Dice", "iou": "IoU", "nsd": "NSD"}


def verdict(row: Mapping[str, Any], metric: str, confidence: float) -> str:
    """What is to be said of an arm against a reference; `row` is one of `compare_all`'s."""
    runs = f"{row['runs']} paired run{'s' if row['runs'] > 1 else ''}"
    within = (
        f"{confidence:.0%} interval {_points(row['low'])} to {_points(row['high'])}"
        if known(row["low"])
        else "no interval"
    )
    return (
        f"{row['arm']}: {_points(row['difference'], '+')} {METRICS[metric]} points against {row['reference']}, "
        f"{within.replace('%', ' %')}, {runs}: {judgement(row, confidence)}"
    )


def judgement(row: Mapping[str, Any], confidence: float) -> str:
    """Better, worse, or not to be told apart."""
    reference = row["reference"]
    if not known(row["p"]):
        return f"too few runs to say whether it differs from {reference}"
    if row["p_holm"] < 1 - confidence:
        return f"{'better' if row['difference'] > 0 else 'worse'} than {reference}"
    if row["p"] < 1 - confidence:
        return f"not distinguishable from {reference} once all arms are counted (Holm's correction)"
    return f"not distinguishable from {reference}"


def caution(row: Mapping[str, Any]) -> str | None:
    """What the intervals are not about; None where they are about patients."""
    if row["unit"] == "group" or row["groups"] == row["cases"]:
        return None
    if row["groups"] == 1:
        return (
            f"All {row['cases']} cases are of one patient or volume: the intervals are over its cases and over "
            "training seeds, and say nothing of other patients."
        )
    return (
        f"The {row['cases']} cases are of {row['groups']} patients or volumes, too few to resample: the intervals are "
        "over cases and training seeds, and too narrow for other patients."
    )


def known(value: Any) -> bool:
    """Whether there is a number: tables have NaN for None."""
    return value is not None and value == value


def _points(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}z.1f}"
