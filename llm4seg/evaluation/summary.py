"""Means of metrics over cases with bootstrap intervals, for each class and over classes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm4seg.config.schema import Evaluation
from llm4seg.objectives.metrics import METRICS, Row, overlap

ENOUGH_GROUPS = 5  # below this many patients (or cases), an interval from resampling them means next to nothing


def case_means(rows: Sequence[Row], metric: str) -> dict[str, float]:
    """Each case's mean of a metric over the classes that are present (reference or prediction); NaN when none is."""
    values: dict[str, list[float]] = {}
    for row in rows:
        of_case = values.setdefault(row["case"], [])
        if not math.isnan(row[metric]):
            of_case.append(row[metric])
    return {case: sum(of_case) / len(of_case) if of_case else math.nan for case, of_case in values.items()}


def summarize(rows: Sequence[Row], section: Evaluation, metrics: Sequence[str] = METRICS) -> dict[str, Any]:
    """Mean, standard deviation and bootstrap interval of each metric over cases, for each class and over classes.

    `rows` are `case_metrics`'s with `case` and `group` added. "Over classes" is each case's mean over the classes
    present in it, then over cases. `pooled_dice` counts the pixels of all cases together, so that small structures
    and slices weigh little; over classes it is the mean of the classes that occur.

    The interval is the percentile bootstrap's (Efron 1979), seeded, and widened for few units; it resamples whole
    groups (patients) when there are at least five, else cases: `unit` is "group" or "case". None is a number that does
    not exist: a mean without cases, a deviation of one case, an interval of fewer than five units.
    """
    unit, units = resampled_units(rows)
    groups = {row["group"] for row in rows}

    def estimates(subset: Sequence[Row]) -> dict[str, Any]:
        return {metric: estimate(case_means(subset, metric), units, section) for metric in metrics}

    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    classes = {name: {**estimates(own), **_pooled(own), **_presence(own)} for name, own in by_class.items()}
    pooled = [facts["pooled_dice"] for facts in classes.values() if facts["pooled_dice"] is not None]
    return {
        **estimates(rows),
        "pooled_dice": rounded(sum(pooled) / len(pooled)) if pooled else None,
        "classes": classes,
        "unit": unit,
        "cases": len(units),
        "groups": len(groups),
        "confidence": section.confidence,
        "resamples": section.bootstrap,
    }


def resampled_units(rows: Sequence[Row]) -> tuple[str, dict[str, str]]:
    """What the bootstrap resamples, "group" or "case", and each case's group, or itself."""
    groups = {row["case"]: row["group"] for row in rows}
    if len(set(groups.values())) >= ENOUGH_GROUPS:
        return "group", groups
    return "case", {case: case for case in groups}


def _pooled(rows: Sequence[Row]) -> Row:
    """Dice of one class over all pixels of all cases together; None when it occurs in none."""
    dice = overlap(*(sum(row[count] for row in rows) for count in ("tp", "fp", "fn")))["dice"]
    return {"pooled_dice": None if math.isnan(dice) else rounded(dice)}


def _presence(rows: Sequence[Row]) -> Row:
    """The number of cases in which a class is rightly absent, missed, or predicted where there is none."""
    reference_predicted = [(row["tp"] + row["fn"] > 0, row["tp"] + row["fp"] > 0) for row in rows]
    kinds = {"absent": (False, False), "missed": (True, False), "false": (False, True)}
    return {kind: reference_predicted.count(which) for kind, which in kinds.items()}


def estimate(values: dict[str, float], units: dict[str, str], section: Evaluation) -> Row:
    """Mean, sample standard deviation and bootstrap interval over the cases that have a value."""
    known = {case: value for case, value in values.items() if not math.isnan(value)}
    numbers = np.array(list(known.values()))
    names = {name: index for index, name in enumerate(dict.fromkeys(units[case] for case in known))}
    members = np.array([names[units[case]] for case in known], dtype=int)
    low, high = bootstrap_interval(numbers, members, section)
    return {
        "mean": rounded(numbers.mean()) if known else None,
        "std": rounded(numbers.std(ddof=1)) if len(known) > 1 else None,
        "low": low,
        "high": high,
        "n": len(known),
    }


def bootstrap_interval(
    numbers: NDArray[Any], members: NDArray[Any], section: Evaluation
) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap of the mean over cases, whole units resampled; None for fewer than five units."""
    return ratio_interval(np.bincount(members, numbers), np.bincount(members), section)


def ratio_interval(
    sums: NDArray[Any], counts: NDArray[Any], section: Evaluation
) -> tuple[float, float] | tuple[None, None]:
    """Percentile bootstrap of sum(sums) / sum(counts), an entry of both a unit, no count 0; None for under five."""
    from scipy.stats import bootstrap

    def mean(sums: NDArray[Any], counts: NDArray[Any], axis: int) -> Any:
        return sums.sum(axis) / counts.sum(axis)

    if len(counts) < ENOUGH_GROUPS:
        return None, None
    result = bootstrap(
        (sums, counts),
        mean,
        paired=True,
        method="percentile",
        n_resamples=section.bootstrap,
        confidence_level=_widened(section, len(counts)),
        batch=100,  # bounds the memory; the numbers stay the same
        rng=np.random.default_rng(section.seed),
    )
    return rounded(result.confidence_interval.low), rounded(result.confidence_interval.high)


def _widened(section: Evaluation, units: int) -> float:
    """The level at which the percentile interval of normal data is as wide as Student's t: for few units the nominal
    level is too narrow (Hesterberg, The American Statistician 69, 2015).
    """
    from scipy.stats import norm, t

    wide = float(t.ppf((1 + section.confidence) / 2, units - 1)) * (units / (units - 1)) ** 0.5
    return min(2 * float(norm.cdf(wide)) - 1, 1 - 1 / section.bootstrap)


def rounded(value: float) -> float:
    return round(float(value), 6)
