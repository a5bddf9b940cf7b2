"""Pairs: the scores of two arms on the same cases under the same seed and fold."""

from collections.abc import Collection

import pandas as pd

from llm4seg.evaluation.summary import ENOUGH_GROUPS

KEYS = ["data", "arm", "repeat", "fold", "case", "group"]  # of the study's table, with a row per class


def with_blocks(table: pd.DataFrame, size: int) -> pd.DataFrame:
    """The table with a column `block`: the block of `size` neighboring slices of a case; None if it is no slice."""
    if not {"volume", "position"} <= set(table):
        return table.assign(block=None)
    known = table["volume"].notna() & table["position"].notna()
    blocks = (table["position"].where(known, 0).astype(int) // size).astype(str)
    return table.assign(block=(table["volume"].astype(str) + " " + blocks).where(known, None))


def class_scores(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A table of KEYS, `class`, `block` and `score`, which is NaN where reference and prediction are both empty."""
    rows = table.assign(fold=table["fold"].fillna(-1).astype(int), score=table[metric])
    return rows.reindex(columns=[*KEYS, "class", "block", "score"])


def pairs(scores: pd.DataFrame, arm: str, reference: str) -> pd.DataFrame:
    """The pairs of two arms, a row per case of a repeat and fold that both have: `fold`, `run`, `case`, `group`,
    `unit`, both scores (means over classes) and `difference`.

    A class without a score in either arm is left out. Where one arm rightly predicts nothing and the other does not, it
    scores 1, the best, so that both means are over the same classes.
    """
    both = scores[scores["arm"] == arm].merge(
        scores.loc[scores["arm"] == reference, ["repeat", "fold", "case", "class", "score"]],
        on=["repeat", "fold", "case", "class"],
        suffixes=("", "_reference"),
    )
    names = ["score", "score_reference"]
    both = both.dropna(subset=names, how="all").fillna(dict.fromkeys(names, 1.0))
    keys = ["repeat", "fold", "case", "group", "block"]
    means = both.groupby(keys, sort=False, dropna=False)[names].mean().reset_index()
    unit = unit_of(means["group"], means["block"])
    run = means["repeat"].astype(str) + "/" + means["fold"].astype(str)
    difference = means["score"] - means["score_reference"]
    return means.assign(run=run, unit=means[unit], by=unit, difference=difference).drop(columns=["repeat", "block"])


def unit_of(groups: Collection[str], blocks: Collection[str | None]) -> str:
    """The unit that is resampled and has a random effect, from the groups and blocks of all cases: a patient (`group`)
    where there are at least five; else a block of neighboring slices, which resemble each other, where all cases are
    slices; else a case.
    """
    if len(set(groups)) >= ENOUGH_GROUPS:
        return "group"
    return "case" if any(pd.isna(block) for block in blocks) else "block"
