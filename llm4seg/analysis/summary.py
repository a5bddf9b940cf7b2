"""Means over images with bootstrap intervals, differences through the block."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from llm4seg.analysis.measures import ATTENTION, FLOORS, OVERLAPS, PROBE, SPECTRUM
from llm4seg.analysis.places import ADAPTER, AFTER, BEFORE, LLM
from llm4seg.analysis.units import Units
from llm4seg.analysis.verdicts import verdicts
from llm4seg.config.schema import Evaluation
from llm4seg.evaluation.summary import estimate, rounded

PAIRS = ((AFTER, BEFORE), (LLM, ADAPTER))
OF_CLASSES = (*OVERLAPS, PROBE, "attention_excess")
OF_TOKENS = (
    *SPECTRUM,
    *(f"centered_{name}" for name in SPECTRUM),
    "change",
    *(f"attention_{name}" for name in ATTENTION),
)


def summarize(
    classes: pd.DataFrame, tokens: pd.DataFrame, names: Sequence[str], units: Units, section: Evaluation
) -> dict[str, Any]:
    """The numbers of analysis.json: for each class and place, and of the tokens, `estimate` over images.

    `floors` stand beside each overlap, means without an interval. `differences`: after minus before of the same images.
    `left_out`: images without a token of a class, or with no other, which have no AUROC of it.
    """
    by_class = dict(iter(classes.groupby("class", sort=False)))
    places = list(dict.fromkeys(tokens["place"]))
    summary = {
        "images": len(units.by_case),
        "groups": units.groups,
        "unit": units.kind,
        "units": len(set(units.by_case.values())),
        "confidence": section.confidence,
        "resamples": section.bootstrap,
        "headline": names[0],
        "places": places,
        "left_out": {name: _without(by_class[name]) for name in names},
        "classes": {
            name: {place: _of_class(by_class[name], place, units, section) for place in places} for name in names
        },
        "tokens": {place: _of_tokens(tokens, place, units, section) for place in places},
        "differences": {
            f"{after} - {before}": {
                "classes": {
                    name: _differences(by_class[name], after, before, OF_CLASSES, units, section) for name in names
                },
                "tokens": _differences(tokens, after, before, OF_TOKENS, units, section),
            }
            for after, before in PAIRS
            if after in places
        },
    }
    caution = units.caution()
    return summary | {"verdicts": verdicts(summary), "cautions": [caution] if caution else []}


def _without(table: pd.DataFrame) -> int:
    return int(table.loc[table["place"] == BEFORE, "auroc"].isna().sum())


def _values(table: pd.DataFrame, place: str, measure: str) -> dict[str, float]:
    """A measure of each image at a place."""
    own = table[table["place"] == place]
    return {str(case): float(value) for case, value in zip(own["case"], own[measure], strict=True)}


def _of_class(table: pd.DataFrame, place: str, units: Units, section: Evaluation) -> dict[str, Any]:
    found = _estimates(table, place, OF_CLASSES, units, section)
    for name in OVERLAPS:
        for floor in FLOORS:
            mean = table.loc[table["place"] == place, f"{name}_{floor}"].mean()
            found[name][floor] = None if math.isnan(mean) else rounded(mean)
    return found


def _of_tokens(table: pd.DataFrame, place: str, units: Units, section: Evaluation) -> dict[str, Any]:
    own = table[table["place"] == place]
    shape = {name: int(own[name].iloc[0]) for name in ("tokens", "width")}
    return shape | _estimates(table, place, OF_TOKENS, units, section)


def _estimates(
    table: pd.DataFrame, place: str, measures: Sequence[str], units: Units, section: Evaluation
) -> dict[str, Any]:
    """`estimate` of each measure that some image has there; overlaps always."""
    of_images = {name: _values(table, place, name) for name in measures}
    return {
        name: estimate(values, units.by_case, section)
        for name, values in of_images.items()
        if name in OVERLAPS or not all(map(math.isnan, values.values()))
    }


def _differences(
    table: pd.DataFrame, after: str, before: str, measures: Sequence[str], units: Units, section: Evaluation
) -> dict[str, Any]:
    """`estimate` of the paired differences of each measure that some image has at both places."""
    found = {}
    for name in measures:
        last, first = _values(table, after, name), _values(table, before, name)
        differences = {case: value - first[case] for case, value in last.items()}
        if not all(map(math.isnan, differences.values())):
            found[name] = estimate(differences, units.by_case, section)
    return found
