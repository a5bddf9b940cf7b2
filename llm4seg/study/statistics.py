"""From every case of every run to comparisons of arms: how large a difference is, and how sure."""

from typing import Any

import numpy as np
import pandas as pd

from llm4seg.sections import Evaluation, Study
from llm4seg.statistics import ENOUGH_GROUPS, bootstrap_interval
from llm4seg.study.mixed import fit_mixed

KEYS = ["data", "arm", "repeat", "fold", "case"]  # of the study's table, a row a class
ENOUGH_FOR_WILCOXON = 6  # of five differences not even five equal signs are rarer than one time in twenty


def case_scores(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Each case's mean of a metric over the classes present, for each run: KEYS, `group` and `score`."""
    rows = table.assign(fold=table["fold"].fillna(-1).astype(int)).dropna(subset=[metric])
    return rows.groupby([*KEYS, "group"], sort=False)[metric].mean().rename("score").reset_index()


def pairs(scores: pd.DataFrame, arm: str, reference: str) -> pd.DataFrame:
    """The cases that both arms have under one seed and fold: `run`, `case`, `group`, `unit`, both scores, `difference`.

    What is resampled and random (`unit`) is a patient where there are at least five, else a case.
    """
    both = scores[scores["arm"] == arm].merge(
        scores[scores["arm"] == reference], on=["repeat", "fold", "case", "group"], suffixes=("", "_reference")
    )
    unit = "group" if both["group"].nunique() >= ENOUGH_GROUPS else "case"
    run = both["repeat"].astype(str) + "/" + both["fold"].astype(str)
    difference = both["score"] - both["score_reference"]
    columns = ["case", "group", "score", "score_reference"]
    return both[columns].assign(run=run, unit=both[unit], by=unit, difference=difference)


def compare(paired: pd.DataFrame, section: Evaluation) -> dict[str, Any]:
    """What pairs say of the difference between two arms.

    `low`, `high` and `p` are the mixed model's, over other seeds and units; where there are too few runs for it, the
    bootstrap's over units (no p), for which these trained networks are fixed. `bootstrap_low` and `bootstrap_high` are
    the latter in any case. Wilcoxon's signed-rank test goes over units (their mean over runs), and over runs (their
    mean over cases). `superiority` is the share of units in which the arm is better, ties counted half.
    """
    cells = paired.groupby(["run", "unit"], sort=False)["difference"].mean().reset_index()
    of_units = cells.groupby("unit", sort=False)["difference"].mean().to_numpy()
    of_runs = paired.groupby("run", sort=False)["difference"].mean().to_numpy()
    fitted, spread = fit_mixed(cells), float(of_units.std(ddof=1)) if len(of_units) > 1 else 0.0
    ends = over_units(of_units, section)
    low, high = fitted.interval(section.confidence) if fitted else ends
    return {
        "difference": fitted.effect if fitted else float(cells["difference"].mean()),
        "low": low,
        "high": high,
        "p": fitted.p if fitted else None,
        "method": "mixed model" if fitted else "bootstrap",
        "bootstrap_low": ends[0],
        "bootstrap_high": ends[1],
        "wilcoxon_units_p": wilcoxon_p(of_units),
        "wilcoxon_runs_p": wilcoxon_p(of_runs),
        "effect_size": float(of_units.mean()) / spread if spread > 0 else None,
        "superiority": float(((of_units > 0) + 0.5 * (of_units == 0)).mean()),
        "unit": paired["by"].iloc[0],
        "runs": len(of_runs),
        "units": len(of_units),
        "cases": paired["case"].nunique(),
        "groups": paired["group"].nunique(),
        **{f"sd_{name}": getattr(fitted, name) ** 0.5 if fitted else None for name in ("run", "unit", "rest")},
    }


def over_units(differences: np.ndarray, section: Evaluation) -> tuple[float, float] | tuple[None, None]:
    """Bootstrap interval of the mean of a difference a unit; none of a single one.

    The percentile bootstrap at a level so much higher that the interval of normal differences is as wide as Student's
    (Hesterberg, The American Statistician 69, 2015): of few units its own is too short.
    """
    from scipy.stats import norm, t

    units = len(differences)
    if units < 2:
        return None, None
    wide = float(t.ppf((1 + section.confidence) / 2, units - 1)) * (units / (units - 1)) ** 0.5
    level = min(2 * float(norm.cdf(wide)) - 1, 1 - 1 / section.bootstrap)
    return bootstrap_interval(differences, np.arange(units), section.model_copy(update={"confidence": level}))


def wilcoxon_p(differences: np.ndarray) -> float | None:
    """Of Wilcoxon's signed-rank test; None where there are too few differences for it to say anything."""
    from scipy.stats import wilcoxon

    if np.count_nonzero(differences) < ENOUGH_FOR_WILCOXON:
        return None
    return float(wilcoxon(differences).pvalue)


def holm(p_values: pd.Series) -> pd.Series:
    """Corrected for as many comparisons as have a p."""
    from statsmodels.stats.multitest import multipletests

    known = p_values.dropna().astype(float)
    corrected = multipletests(known, method="holm")[1] if len(known) else []
    return pd.Series(corrected, index=known.index, dtype=float).reindex(p_values.index)


def compare_all(table: pd.DataFrame, study: Study, section: Evaluation) -> pd.DataFrame:
    """Every arm against every reference on each dataset, with p corrected over the arms by Holm's procedure."""
    scores, rows = case_scores(table, study.metric), []
    for (data, on_it), reference in (
        (one, name) for one in scores.groupby("data", sort=False) for name in study.references
    ):
        for arm in study.arms:
            paired = pairs(on_it, arm, reference)
            if arm != reference and len(paired):
                rows.append({"data": data, "reference": reference, "arm": arm, **compare(paired, section)})
    compared = pd.DataFrame(rows)
    if compared.empty:
        return compared
    for name in ("p", "wilcoxon_units_p", "wilcoxon_runs_p"):
        corrected = [holm(family[name]) for _, family in compared.groupby(["data", "reference"], sort=False)]
        compared[f"{name}_holm"] = pd.concat(corrected)
    return compared
