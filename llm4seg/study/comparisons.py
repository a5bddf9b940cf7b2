"""Comparisons of arms from pairs: differences, their intervals, and tests."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from llm4seg.config.schema import Evaluation, Study
from llm4seg.evaluation.summary import bootstrap_interval
from llm4seg.study.looks import Look
from llm4seg.study.mixed_model import Mixed, fit_mixed
from llm4seg.study.pairs import class_scores, pairs

ENOUGH_FOR_WILCOXON = 6  # of five differences the smallest possible p is above 0.05
VARIANCES = ("fold", "run", "unit", "rest")


def compare(paired: pd.DataFrame, section: Evaluation, look: Look | None = None) -> dict[str, Any]:
    """The difference between two arms, from pairs, at a look or, without, at the end of a study that has none.

    `low`, `high` and `p` are the mixed model's, over other seeds and units; where it has too few runs or units, the
    bootstrap's over units (no p; `reason` is the cause), for which these trained networks are fixed. `bootstrap_low`
    and `bootstrap_high` are the latter in any case. Wilcoxon's signed-rank test goes over units (their mean over runs),
    and over runs (their mean over cases), or folds where there are several. The effect size is for one unit in one run,
    and `superiority` the share of these in which the arm is better, ties counted half: neither grows with repeats.

    At a look, `p` is adjusted for all looks (`p_unadjusted` is not), and the interval is the repeated one (Jennison &
    Turnbull, J. R. Stat. Soc. B 51, 1989): of the look's own level, it leaves out zero where p is below alpha. Before
    the last look, one split's have the fewest degrees of freedom.
    """
    cells = paired.groupby(["fold", "run", "unit"], sort=False)["difference"].mean().reset_index()
    single = cells["difference"].to_numpy()
    folds = paired["fold"].nunique()
    of_units = cells.groupby("unit", sort=False)["difference"].mean().to_numpy()
    of_runs = paired.groupby("fold" if folds > 1 else "run", sort=False)["difference"].mean().to_numpy()
    fit = fit_mixed(cells)
    fitted = fit if isinstance(fit, Mixed) else None
    if fitted and look and not look.last and folds == 1:
        fitted = fitted.with_fewest_degrees(paired["run"].nunique(), paired["unit"].nunique())
    ends = bootstrap_interval(of_units, np.arange(len(of_units)), section)
    if fitted:
        effect, spread = fitted.effect, fitted.spread
    else:
        effect = float(single.mean())
        spread = float(single.std(ddof=1)) if len(single) > 1 else 0.0
    confidence = section.confidence if look is None else 1 - look.level(1 - section.confidence)
    low, high = fitted.interval(confidence) if fitted else ends
    p = fitted.p if fitted else None
    at_look = {} if look is None else {"p_unadjusted": p, "look": f"{look.number} of {look.looks}"}
    return {
        "difference": effect,
        "low": low,
        "high": high,
        "p": p if p is None or look is None else look.p(p),
        **at_look,
        "method": "mixed model" if fitted else "bootstrap",
        "reason": None if fitted else fit,
        "bootstrap_low": ends[0],
        "bootstrap_high": ends[1],
        "wilcoxon_units_p": wilcoxon_p(of_units),
        "wilcoxon_runs_p": wilcoxon_p(of_runs),
        "effect_size": effect / spread if spread > 0 else None,
        "superiority": float(((single > 0) + 0.5 * (single == 0)).mean()),
        **_counts(paired),
        **{f"sd_{name}": _root(getattr(fitted, name, None)) for name in VARIANCES},
    }


def _counts(paired: pd.DataFrame) -> dict[str, Any]:
    """The numbers of runs, folds, units, cases and groups; and the kind of unit."""
    several = {f"{name}s": paired[name].nunique() for name in ("run", "fold", "unit", "case", "group")}
    return {"unit": paired["by"].iloc[0], **several}


def _root(variance: float | None) -> float | None:
    return None if variance is None else variance**0.5


def wilcoxon_p(differences: np.ndarray) -> float | None:
    """p of Wilcoxon's signed-rank test; None where too few differences allow no p below 0.05."""
    from scipy.stats import wilcoxon

    if np.count_nonzero(differences) < ENOUGH_FOR_WILCOXON:
        return None
    return float(wilcoxon(differences).pvalue)


def holm(p_values: pd.Series) -> pd.Series:
    """p corrected by Holm's step-down procedure for as many comparisons as have a p (Holm 1979).

    The smallest of m values is multiplied by m, the next by m - 1, and so on; corrected values never decrease.
    """
    known = p_values.dropna().astype(float).sort_values(kind="stable")
    factors = np.arange(len(known), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(known.to_numpy() * factors), 1.0)
    return pd.Series(corrected, index=known.index, dtype=float).reindex(p_values.index)


def compare_all(table: pd.DataFrame, study: Study, section: Evaluation, look: Look | None = None) -> pd.DataFrame:
    """Every arm against every reference on each dataset, with p corrected over the arms by Holm's procedure.

    At a look, of the runs that it is after.
    """
    if look is not None:
        table = table[table["repeat"] < look.repeats]
    scores, rows = class_scores(table, study.metric), []
    for data, own_scores in scores.groupby("data", sort=False):
        for reference, arm in product(study.chosen_references, study.chosen):
            paired = pairs(own_scores, arm, reference)
            if arm != reference and len(paired):
                about = {"data": data, "reference": reference, "arm": arm, "per": study.per}
                rows.append({**about, **compare(paired, section, look)})
    compared = pd.DataFrame(rows)
    if compared.empty:
        return compared
    for name in ("p", "wilcoxon_units_p", "wilcoxon_runs_p"):
        corrected = [holm(family[name]) for _, family in compared.groupby(["data", "reference"], sort=False)]
        compared[f"{name}_holm"] = pd.concat(corrected)
    ends = dict.fromkeys(("low", "high", "bootstrap_low", "bootstrap_high"), float)
    return compared.astype(ends)  # NaN where there is no interval, also where there is none at all
