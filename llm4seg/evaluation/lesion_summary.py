"""Lesion-wise sensitivity, false positives and volume errors over cases, with bootstrap intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llm4seg.config.schema import Evaluation
from llm4seg.evaluation.summary import case_means, estimate, ratio_interval, resampled_units, rounded
from llm4seg.objectives.lesions import COUNTS
from llm4seg.objectives.metrics import Row

Units = dict[str, str]  # what is resampled with each case


def summarize_lesions(rows: Sequence[Row], section: Evaluation) -> dict[str, Any]:
    """COUNTS of lesions over all cases and what follows from them, for each class and for all classes together.

    `rows` are `case_metrics`'s with `case` and `group` added. `sensitivity`: lesions found among all lesions of all
    cases. `false_per_case`: the mean number of false lesions in a case. `volume_error` and `absolute_volume_error`:
    means over the cases in which the class is present in the reference; over classes, of each case's mean. Each with an
    interval as in `summarize`: for sensitivity, over units with a lesion. All classes together add the lesions of each,
    also of regions that overlap.
    """
    _, units = resampled_units(rows)
    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    classes = {name: _summary(own, units, section) for name, own in by_class.items()}
    return {**_summary(rows, units, section), "classes": classes}


def _summary(rows: Sequence[Row], units: Units, section: Evaluation) -> dict[str, Any]:
    counts: dict[str, Any] = {name: sum(row[name] for row in rows) for name in COUNTS}
    false: dict[str, float] = dict.fromkeys((row["case"] for row in rows), 0)
    for row in rows:
        false[row["case"]] += row["false_lesions"]
    absolute = [{**row, "volume_error": abs(row["volume_error"])} for row in rows]
    return {
        **counts,
        "sensitivity": _sensitivity(rows, units, section),
        "false_per_case": estimate(false, units, section),
        "volume_error": estimate(case_means(rows, "volume_error"), units, section),
        "absolute_volume_error": estimate(case_means(absolute, "volume_error"), units, section),
    }


def _sensitivity(rows: Sequence[Row], units: Units, section: Evaluation) -> Row:
    """The share of lesions found, and its interval over units with a lesion; `n`: lesions."""
    found, lesions = dict.fromkeys(units.values(), 0), dict.fromkeys(units.values(), 0)
    for row in rows:
        found[units[row["case"]]] += row["found_lesions"]
        lesions[units[row["case"]]] += row["lesions"]
    known = [unit for unit in lesions if lesions[unit]]
    sums, counts = (np.array([of_unit[unit] for unit in known]) for of_unit in (found, lesions))
    low, high = ratio_interval(sums, counts, section)
    mean = rounded(sums.sum() / counts.sum()) if known else None
    return {"mean": mean, "low": low, "high": high, "n": int(counts.sum())}
