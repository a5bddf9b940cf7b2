"""The cells of the table: means over runs, paired differences from a reference, and which method is best."""

from itertools import combinations
from typing import Any

import pandas as pd

from llm4seg.config.schema import Evaluation, Study
from llm4seg.study.comparisons import compare, compare_all, holm
from llm4seg.study.over_data import compare_over_data
from llm4seg.study.pairs import class_scores, pairs
from llm4seg.study.verdict import caution
from llm4seg.tools.table.scores import Scores, shared_cases
from llm4seg.utils.tables import records

RUN = ["data", "arm", "repeat", "fold"]


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """`data`, `arm`, `mean`, sample standard deviation `std` and number of `runs`, a row per data set and method.

    A run's score is the mean over its cases, a case's the mean over its classes that have a score.
    """
    known = rows.assign(fold=rows["fold"].fillna(-1))
    of_cases = known.groupby([*RUN, "case"], sort=False)["score"].mean()
    of_runs = of_cases.groupby(RUN, sort=False).mean()
    cells = of_runs.groupby(["data", "arm"], sort=False).agg(mean="mean", std="std", runs="count")
    return cells.reset_index()


def compared_cells(scores: Scores, study: Study, section: Evaluation) -> pd.DataFrame:
    """`means` of all methods, with the columns of `compare_all` against the reference (NaN in its own rows), and
    `best`: whether a method is better than every other one on this data set.
    """
    table = scores.rows.rename(columns={"score": study.metric})
    cells = means(scores.rows)
    compared = compare_all(table, study, section)
    if len(compared):
        cells = cells.merge(compared.drop(columns="runs"), on=["data", "arm"], how="left")
    best = {data: best_of(of_data, cells[cells["data"] == data], section) for data, of_data in _by_data(table, study)}
    cells["best"] = [row.arm == best[row.data] for row in cells.itertuples()]
    return cells


def _by_data(table: pd.DataFrame, study: Study) -> Any:
    return class_scores(table, study.metric).groupby("data", sort=False)


def best_of(scores: pd.DataFrame, cells: pd.DataFrame, section: Evaluation) -> str | None:
    """The method with the highest mean if it differs from every other one for certain, else None.

    p is corrected by Holm's procedure over all pairs of methods of the data set, since which is highest is seen only in
    the data.
    """
    methods = list(cells["arm"])
    rows = [{"one": one, "other": other, **_test(scores, one, other, section)} for one, other in _pairs_of(methods)]
    tests = pd.DataFrame(rows, columns=["one", "other", "difference", "p"])
    tests["p_holm"] = holm(tests["p"])
    known = cells.dropna(subset="mean")
    top = known["arm"].iloc[known["mean"].argmax()] if len(known) else None
    of_top = tests[(tests["one"] == top) | (tests["other"] == top)]
    ahead = of_top["difference"].where(of_top["one"] == top, -of_top["difference"]) > 0
    certain = ahead & (of_top["p_holm"] < 1 - section.confidence)
    return str(top) if len(of_top) and certain.all() else None


def _pairs_of(methods: list[str]) -> list[tuple[str, str]]:
    return list(combinations(methods, 2))


def _test(scores: pd.DataFrame, one: str, other: str, section: Evaluation) -> dict[str, Any]:
    """The difference of two methods and its p; None where they share no case under one seed."""
    paired = pairs(scores, one, other)
    if paired.empty:
        return {"difference": None, "p": None}
    row = compare(paired, section)
    return {"difference": row["difference"], "p": row["p"]}


def over_data(scores: Scores, cells: pd.DataFrame, study: Study, section: Evaluation) -> pd.DataFrame:
    """`compare_over_data` over the data sets on which the methods were trained; empty for a single one."""
    trained = scores.rows[scores.rows["trained"]]
    table = trained.rename(columns={"score": study.metric})
    compared = cells[cells["data"].isin(trained["data"])]
    if "reference" not in compared:
        return pd.DataFrame()
    return compare_over_data(table, compared, study, section.confidence)


def cautions(scores: Scores, cells: pd.DataFrame) -> list[str]:
    """What makes intervals too narrow, a line each."""
    known = cells.dropna(subset=["reference"]) if "reference" in cells else cells.iloc[:0].assign(cases=0, groups=0)
    known = known.astype({"cases": int, "groups": int})  # those of the reference's own rows are missing
    found = {f"{row['data']}: {line}": None for row in records(known) if (line := caution(row))}
    shared = [
        f"{data}: test parts share cases, so that they are no independent folds and intervals are too narrow"
        for data in shared_cases(scores.rows)
    ]
    return [*found, *shared]
