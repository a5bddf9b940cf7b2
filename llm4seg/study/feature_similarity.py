"""Similarity of arms: linear CKA of what enters the decoder, over the test images' mean tokens."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from llm4seg.analysis.measures import even
from llm4seg.analysis.similarity import cka
from llm4seg.study.arms import PlannedRun

MOST_IMAGES = 200  # whose coordinates a record has
COORDINATES = "feature_means"  # table of a run's record, a row an image (or patch)
COLUMNS = ("arm", "other", "repeat", "other_repeat", "fold", "cka")


def coordinates(means_MD: Tensor) -> list[list[float]]:
    """The images' mean tokens up to rotation and offset, which CKA does not see: at most as many numbers as images."""
    means_MD = even(means_MD.double(), MOST_IMAGES)
    left, singular, _ = torch.linalg.svd(means_MD - means_MD.mean(0), full_matrices=False)
    rows: list[list[float]] = (left * singular).tolist()
    return [[float(f"{value:.6g}") for value in row] for row in rows]


def similarity_table(runs: Iterable[tuple[PlannedRun, dict[str, Any]]]) -> pd.DataFrame:
    """CKA of pairs of finished runs with the same test images: of two arms in one repeat, and of one arm in two
    repeats, which says how alike two trainings are that differ by their seed alone.
    """
    known = [(run, _features(record)) for run, record in runs if record.get(COORDINATES)]
    rows = []
    for (one, own), (other, theirs) in combinations(known, 2):
        if (one.data, one.fold) == (other.data, other.fold) and (one.repeat == other.repeat or one.arm == other.arm):
            about = (one.arm, other.arm, one.repeat, other.repeat, one.fold)
            rows.append(dict(zip(COLUMNS, (*about, cka(own, theirs)), strict=True)))
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _features(record: dict[str, Any]) -> Tensor:
    return torch.tensor([row["coordinates"] for row in record[COORDINATES]], dtype=torch.float64)


def mean_similarity(table: pd.DataFrame) -> list[dict[str, Any]]:
    """For each pair of arms, and each arm with itself under another seed, the mean CKA and the number of pairs."""
    means = table.groupby(["arm", "other"], sort=False)["cka"].agg(["mean", "count"]).reset_index()
    return [
        {"arm": row["arm"], "other": row["other"], "cka": round(float(row["mean"]), 4), "pairs": int(row["count"])}
        for row in means.to_dict("records")
        if row["count"]
    ]
