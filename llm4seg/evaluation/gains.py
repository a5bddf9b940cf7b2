"""Gains: what an option of the evaluation adds, as paired differences of the same cases' scores."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm4seg.config.schema import Evaluation
from llm4seg.evaluation.summary import case_means, estimate, resampled_units
from llm4seg.objectives.metrics import Row

COMPARED = {"dice": 1.0, "nsd": 1.0, "false_lesions": 0.0}  # with the score of a class that is rightly absent
OPTIONS = {
    "tta": "test-time augmentation",
    "postprocess": "post-processing",
    "ensemble": "the ensemble, over the mean of its models,",
}


def gains(rows: Sequence[Row], without: Sequence[Sequence[Row]], section: Evaluation) -> dict[str, Any]:
    """Of `rows` over the mean of one table or several `without` an option: for each metric of COMPARED the mean over
    cases, as `estimate` gives it, of each case's mean over classes (of false lesions, their number in all classes), and
    for each class (`classes`).

    A class without a score in all tables is left out; where a table has none, it is rightly absent there, and scores
    the best. So both are over the same classes. Intervals resample whole groups or cases, as in `summarize`.
    """
    _, units = resampled_units(rows)
    differences = [
        {"case": row["case"], "class": row["class"], **{name: _difference(name, row, others) for name in COMPARED}}
        for row, *others in zip(rows, *without, strict=True)
    ]

    def estimates(subset: Sequence[Row]) -> dict[str, Any]:
        false = dict.fromkeys(units, 0.0)
        for row in subset:
            false[row["case"]] += row["false_lesions"]
        of_cases = {name: case_means(subset, name) for name in COMPARED} | {"false_lesions": false}
        return {name: estimate(of_cases[name], units, section) for name in COMPARED}

    by_class: dict[str, list[Row]] = {}
    for row in differences:
        by_class.setdefault(row["class"], []).append(row)
    return {**estimates(differences), "classes": {name: estimates(own) for name, own in by_class.items()}}


def _difference(metric: str, row: Row, others: Sequence[Row]) -> float:
    assert all((one["case"], one["class"]) == (row["case"], row["class"]) for one in others)
    values = [one[metric] for one in (row, *others)]
    if all(math.isnan(value) for value in values):
        return math.nan
    own, *rest = (COMPARED[metric] if math.isnan(value) else value for value in values)
    return float(own - sum(rest) / len(rest))


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """What metrics.json says of gains, and of an ensemble that has seen test cases, a line each."""
    lines = []
    for option, gain in summary.get("gains", {}).items():
        dice = gain["dice"]
        if dice["mean"] is None:
            continue
        ends = "no interval" if dice["low"] is None else f"{100 * dice['low']:+.2f} to {100 * dice['high']:+.2f}"
        lines.append(f"{OPTIONS[option]} adds {100 * dice['mean']:+.2f} points of Dice ({ends})")
    if seen := summary.get("models", {}).get("seen"):
        lines.append(f"warning: {seen} of {summary['cases']} test cases were in the training or validation of a model")
    return lines
