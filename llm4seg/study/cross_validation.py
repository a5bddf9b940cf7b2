"""Cross-validation: the scores of each arm over all folds together, in which every case is tested once a repeat."""

from typing import Any

import pandas as pd

from llm4seg.config.schema import Evaluation, Study
from llm4seg.evaluation.summary import case_means, estimate, resampled_units


def cross_validation(table: pd.DataFrame, study: Study, section: Evaluation) -> dict[str, Any] | None:
    """`study.metric` on the study's own data, from the table of all finished runs; None without folds.

    `rows`: for each arm the mean over classes (`class` null), and each class: `estimate` over all cases (their mean
    over repeats), and `folds`, the mean over the cases of each fold, null where none has finished. `unit`, `cases` and
    `groups`: as in `summarize`.
    """
    if not study.folds or table.empty:
        return None
    own = table[table["data"] == table["data"].iloc[0]]
    known = own.astype({"case": str}).to_dict("records")
    unit, units = resampled_units([{str(key): value for key, value in row.items()} for row in known])
    classes = [None, *dict.fromkeys(own["class"])] if own["class"].nunique() > 1 else [None]
    rows = [
        {
            "arm": arm,
            "class": one,
            **_scores(of_arm if one is None else of_arm[of_arm["class"] == one], study, units, section),
        }
        for arm, of_arm in own.groupby("arm", sort=False)
        for one in classes
    ]
    about = {"data": own["data"].iloc[0], "folds": [*study.folds], "confidence": section.confidence}
    return {**about, "unit": unit, "cases": len(units), "groups": len(set(own["group"])), "rows": rows}


def _scores(table: pd.DataFrame, study: Study, units: dict[str, str], section: Evaluation) -> dict[str, Any]:
    """The estimate over all cases, and the mean of each fold."""
    runs = []
    for (repeat, fold), of_run in table.groupby(["repeat", "fold"], sort=False):
        rows: Any = of_run.astype({"case": str}).to_dict("records")
        runs += [(repeat, fold, case, value) for case, value in case_means(rows, study.metric).items()]
    means = pd.DataFrame(runs, columns=["repeat", "fold", "case", "score"])
    of_cases = means.groupby("case", sort=False)["score"].mean()
    of_folds = means.groupby("fold")["score"].mean()
    folds = [
        round(float(of_folds[fold]), 6) if fold in of_folds and pd.notna(of_folds[fold]) else None
        for fold in study.folds
    ]
    return {**estimate(of_cases.to_dict(), units, section), "folds": folds}
