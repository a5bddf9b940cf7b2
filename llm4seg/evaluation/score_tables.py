"""The tables of metrics.json by what a row of scores is of, the headline first; without heavy imports."""

from typing import Any


def score_tables(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The scores per volume and per slice, where there are both; else per slice, or case, as of earlier versions."""
    if volumes := metrics.get("volumes"):
        return {"volumes": volumes, "slices": metrics}
    return {metrics.get("headline", "cases"): metrics}
