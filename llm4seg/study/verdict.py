"""A comparison in one plain sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

METRICS = {"dice": "Dice", "iou": "IoU", "nsd": "NSD", "log_likelihood": "log-likelihood"}  # more of each is better


@dataclass(frozen=True)
class Scale:
    """How differences of a metric are shown: times `factor`, in `unit`, with so many digits."""

    factor: float
    unit: str
    digits: int

    def __call__(self, value: float, sign: str = "") -> str:
        return f"{self.factor * value:{sign}z.{self.digits}f}"


POINTS, NATS = Scale(100, "points", 1), Scale(1, "nats a pixel", 4)


def scale(metric: str) -> Scale:
    """The scale of a metric's differences."""
    return NATS if metric == "log_likelihood" else POINTS


def verdict(row: Mapping[str, Any], metric: str, confidence: float) -> str:
    """The verdict on an arm against a reference, from a row of `compare_all`."""
    runs = f"{row['runs']} paired run{'s' if row['runs'] > 1 else ''}"
    if known(row.get("look")):
        runs += f" at look {row['look']}"
    shown = scale(metric)
    within = (
        f"{confidence:.0%} interval {shown(row['low'])} to {shown(row['high'])}" if known(row["low"]) else "no interval"
    )
    measured = f"{METRICS[metric]} points" if shown is POINTS else f"{shown.unit} of {METRICS[metric]}"
    per = " per volume" if row["per"] == "volume" else ""
    return (
        f"{row['arm']}: {shown(row['difference'], '+')} {measured}{per} against {row['reference']}, "
        f"{within.replace('%', ' %')}, {runs}: {judgment(row, confidence)}{_scope(row)}"
    )


def units(unit: str, per: str) -> str:
    """What a unit is called; `per`: what has one score, a case or a volume."""
    return {"group": "patients", "block": "blocks of slices", "case": f"{per}s"}[unit]


def judgment(row: Mapping[str, Any], confidence: float) -> str:
    """Better, worse, or not distinguishable."""
    reference = row["reference"]
    if not known(row["p"]):
        return _undecided(row)
    if row["p_holm"] < 1 - confidence:
        return f"{'better' if row['difference'] > 0 else 'worse'} than {reference}"
    if row["p"] < 1 - confidence:
        return f"not distinguishable from {reference} once all arms are counted (Holm's correction)"
    return f"not distinguishable from {reference}"


def _undecided(row: Mapping[str, Any]) -> str:
    """Why there is no p."""
    if row["reason"] == "equal":
        same = "no difference" if row["difference"] == 0 else "the same difference"
        return f"{same} from {row['reference']} throughout, of which there is nothing to test"
    few = "runs" if row["reason"] == "runs" else units(row["unit"], row["per"])
    return f"too few {few} to say whether it differs from {row['reference']}"


def _scope(row: Mapping[str, Any]) -> str:
    """The scope of a verdict, where it is not about patients in general."""
    if row["unit"] == "group" or row["groups"] == row["cases"]:
        return ""
    whom = "this one patient" if row["groups"] == 1 else f"these {row['groups']} patients"
    alike = f"; {row['per']}s of one patient resemble each other, so the interval is too narrow"
    return f", of {whom}{alike if row['unit'] == 'case' else ''}"


def caution(row: Mapping[str, Any]) -> str | None:
    """A warning where the intervals are not about other patients; else None."""
    if row["unit"] == "group" or row["groups"] == row["cases"]:
        return None
    scored = f"{row['per']}s"
    over = "blocks of neighboring slices" if row["unit"] == "block" else scored
    whose = "patient" if row["per"] == "volume" else "patient or volume"
    if row["groups"] == 1:
        return (
            f"All {row['cases']} {scored} are of one {whose}: the intervals are over its {over} and over "
            "training seeds, and say nothing of other patients."
        )
    several = "patients" if row["per"] == "volume" else "patients or volumes"
    return (
        f"The {row['cases']} {scored} are of {row['groups']} {several}, too few to resample: the intervals are "
        f"over {over} and training seeds, and too narrow for other patients."
    )


def known(value: Any) -> bool:
    """Whether there is a number: tables have NaN for None."""
    return value is not None and value == value
