"""Cross-validation: the scores of each arm over all folds together, in which every case is tested once a repeat."""

import math
from typing import Any

import pandas as pd

from llm4seg.config.schema import Evaluation, Study
from llm4seg.evaluation.summary import case_means, estimate, resampled_units, rounded


def cross_validation(table: pd.DataFrame, study: Study, section: Evaluation) -> dict[str, Any] | None:
    """`study.metric` on the study's own data, from the table of all finished runs; None without folds, and
    for several data sets (`study.data`).

    `rows`: for each arm the mean over classes (`class` null), and each class: `estimate` over all cases (their mean
    over repeats), and `folds`, the mean over the cases of each fold, null where none has finished. `unit`, `cases` and
    `groups`: as in `summarize`.
    """
    if not study.folds or study.data or table.empty:
        return None
    own = table[table["data"] == table["data"].iloc[0]]
    records: Any = own.to_dict("records")
    unit, units = resampled_units(records)
    classes = [None, *dict.fromkeys(own["class"])] if own["class"].nunique() > 1 else [None]
    rows = []
    for arm, of_arm in own.groupby("arm", sort=False):
        for one in classes:
            chosen = of_arm if one is None else of_arm[of_arm["class"] == one]
            rows.append({"arm": arm, "class": one, **_scores(chosen, study, units, section)})
    about = {"data": own["data"].iloc[0], "folds": [*study.folds], "confidence": section.confidence}
    return {**about, "unit": unit, "cases": len(units), "groups": len(set(own["group"])), "rows": rows}


def _scores(table: pd.DataFrame, study: Study, units: dict[str, str], section: Evaluation) -> dict[str, Any]:
    """The estimate over all cases, and the mean of each fold."""
    of_cases: dict[str, list[float]] = {}
    of_folds: dict[int, list[float]] = {fold: [] for fold in study.folds}
    for _, of_run in table.groupby(["repeat", "fold"], sort=False):
        fold = int(of_run["fold"].iloc[0])
        records: Any = of_run.to_dict("records")
        for case, score in case_means(records, study.metric).items():
            if not math.isnan(score):
                of_cases.setdefault(case, []).append(score)
                of_folds[fold].append(score)
    means = {case: sum(scores) / len(scores) for case, scores in of_cases.items()}
    folds = [rounded(sum(scores) / len(scores)) if scores else None for scores in of_folds.values()]
    return {**estimate(means, units, section), "folds": folds}
