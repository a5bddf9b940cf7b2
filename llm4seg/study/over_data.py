"""Arms compared over data sets: does a method help on other data sets than these, too?

Of five data sets or more, Wilcoxon's signed-rank test over their mean differences (Demšar, JMLR 7, 2006); of five, its
smallest possible p is 0.0625. Of fewer, the mixed model with the data set as a random effect, in the place of the fold:
Student's t over the data sets' means, which weigh alike.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pandas as pd

from llm4seg.config.schema import Study
from llm4seg.study.comparisons import holm
from llm4seg.study.mixed_model import Mixed, fit_mixed
from llm4seg.study.pairs import class_scores, pairs
from llm4seg.study.verdict import METRICS, known

ENOUGH_DATA_SETS = 5  # for Wilcoxon's test
WILCOXON, MIXED = "wilcoxon", "mixed model"


def compare_over_data(table: pd.DataFrame, compared: pd.DataFrame, study: Study, confidence: float) -> pd.DataFrame:
    """Every arm against every reference over the data sets of a table of cases; empty where no two have both.

    `compared` is `compare_all` of that table. A row has `reference`, `arm`, `data_sets` (their number), `difference`
    (the data sets' mean), `smallest` and `largest` of theirs, `low`, `high` and `p` (Wilcoxon's test has no interval),
    `method`, `reason` (why there is no p, else None), and `p_holm`, corrected over the arms.
    """
    if compared.empty:
        return pd.DataFrame()
    scores, rows = class_scores(table, study.metric), []
    for reference, arm in product(study.chosen_references, study.chosen):
        own = compared[(compared["reference"] == reference) & (compared["arm"] == arm)]
        if len(own) > 1:
            about = {"reference": reference, "arm": arm, "per": study.per, "data_sets": len(own)}
            cells = _cells(scores, own["data"], arm, reference)
            rows.append({**about, **_tested(own["difference"].to_numpy(), cells, confidence)})
    found = pd.DataFrame(rows)
    if len(found):
        found["p_holm"] = pd.concat([holm(family["p"]) for _, family in found.groupby("reference", sort=False)])
        found = found.astype(dict.fromkeys(("low", "high", "p"), float))
    return found


def _cells(scores: pd.DataFrame, data_sets: pd.Series, arm: str, reference: str) -> Iterator[pd.DataFrame]:
    """The differences of each data set as the mixed model takes them, with the data set in the place of the fold."""
    for data in data_sets:
        paired = pairs(scores[scores["data"] == data], arm, reference)
        cells = paired.groupby(["fold", "run", "unit"], sort=False)["difference"].mean().reset_index()
        yield cells.assign(fold=data, run=f"{data}/" + cells["run"], unit=f"{data}/" + cells["unit"].astype(str))


def _tested(differences: Any, cells: Iterator[pd.DataFrame], confidence: float) -> dict[str, Any]:
    """The mean over data sets, and the test that their number allows."""
    about = {"difference": float(differences.mean()), "smallest": differences.min(), "largest": differences.max()}
    if len(differences) >= ENOUGH_DATA_SETS:
        from scipy.stats import wilcoxon

        p = float(wilcoxon(differences).pvalue) if differences.any() else None
        return {**about, "low": None, "high": None, "p": p, "method": WILCOXON, "reason": None if p else "equal"}
    fit = fit_mixed(pd.concat(cells))
    if not isinstance(fit, Mixed):
        return {**about, "low": None, "high": None, "p": None, "method": MIXED, "reason": fit}
    low, high = fit.interval(confidence)
    return {**about, "difference": fit.effect, "low": low, "high": high, "p": fit.p, "method": MIXED, "reason": None}


def verdict_over_data(row: Mapping[str, Any], metric: str, confidence: float) -> str:
    """The verdict over data sets in one plain sentence, with the test that was used."""
    points = f"{100 * row['difference']:+z.1f} {METRICS[metric]} points"
    spread = f"{100 * row['smallest']:+z.1f} to {100 * row['largest']:+z.1f} on each"
    over = f"against {row['reference']} over {row['data_sets']} data sets"
    return f"{row['arm']}: {points} {over} ({spread}), {_how(row, confidence)}"


def _how(row: Mapping[str, Any], confidence: float) -> str:
    """The test, its result, and what it decides."""
    if not known(row["p"]):
        few = {"runs": "too few runs", "units": "too few cases", "equal": "all differences are equal"}[row["reason"]]
        return f"{few} to say whether it differs from {row['reference']}"
    if row["method"] == WILCOXON:
        test = f"Wilcoxon's signed-rank test over data sets, p {row['p']:.2g}"
        test += ", of five the smallest possible is 0.0625" if row["data_sets"] == ENOUGH_DATA_SETS else ""
    else:
        ends = f"{100 * row['low']:z.1f} to {100 * row['high']:z.1f}"
        test = f"mixed model with the data set as a random effect, {confidence:.0%} interval {ends}".replace("%", " %")
    if row["p_holm"] < 1 - confidence:
        return f"{test}: {'better' if row['difference'] > 0 else 'worse'} than {row['reference']}"
    counted = " once all arms are counted (Holm's correction)" if row["p"] < 1 - confidence else ""
    return f"{test}: not distinguishable from {row['reference']}{counted}"
