"""Comparisons of arms in what was measured of their features, paired by image, seed and fold; with verdicts."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pandas as pd

from llm4seg.analysis.measures import Row
from llm4seg.analysis.places import AFTER, BEFORE
from llm4seg.analysis.verdicts import class_words
from llm4seg.config import Config
from llm4seg.study.arms import PlannedRun
from llm4seg.study.comparisons import compare, holm
from llm4seg.study.pairs import class_scores, pairs, with_blocks
from llm4seg.study.verdict import known

# what is compared between arms, of the headline class and of the tokens, where features enter the decoder
OF_CLASS = {
    "auroc": "AUROC of the activation map",
    "iou_area": "IoU of the map at the mask's area",
    "probe": "balanced accuracy of the linear probe",
}
OF_TOKENS = {"effective_rank": "effective rank", "lsvr": "LSVR"}
COMPARED = OF_CLASS | OF_TOKENS
FAMILY = ["data", "reference"]  # of comparisons whose p are corrected together
CLASSES, TOKENS, DATASET = "features", "feature_tokens", "feature_places"  # tables of a run's record
FEATURES, COMPARISONS, SIMILARITY = "analysis", "analysis_comparisons", "analysis_similarity"  # files of a study


def feature_table(runs: Iterable[tuple[PlannedRun, dict[str, Any]]], block: int) -> pd.DataFrame:
    """A row per finished run, image and measure of COMPARED: its `score` where features enter the decoder, of the CNN
    alone where they leave the encoder. `class`: of the measures of a class, the headline's.
    """
    rows = []
    for run, record in runs:
        if not record.get(CLASSES):
            continue
        about: Row = {"arm": run.arm, "repeat": run.repeat, "fold": run.fold}
        headline = record[CLASSES][0]["class"]
        own = [row for row in record[CLASSES] if row["class"] == headline]
        rows += [about | row for row in _entering(own, OF_CLASS)]
        rows += [about | {"class": "tokens"} | row for row in _entering(record[TOKENS], OF_TOKENS)]
    if not rows:
        return pd.DataFrame()
    return with_blocks(pd.DataFrame(rows).astype({"score": float}), block)


def _entering(rows: list[Row], measures: dict[str, str]) -> list[Row]:
    """Of rows of one run, a row an image and measure at the place that the decoder reads."""
    last = AFTER if any(row["place"] == AFTER for row in rows) else BEFORE
    names = ("data", "case", "group", "volume", "position", "class")
    return [
        {name: row[name] for name in names if name in row} | {"measure": measure, "score": row[measure]}
        for row in rows
        if row["place"] == last
        for measure in measures
    ]


def compare_features(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Every arm against every reference in each measure on each data set, as `compare` does, from pairs of the same
    image and seed.

    p is corrected by Holm's procedure over all measures and arms against one reference on one data set.
    """
    study, rows = config.study, []
    for (data, measure), own in table.groupby(["data", "measure"], sort=False) if len(table) else ():
        scores = class_scores(own, "score")
        for reference, arm in product(study.chosen_references, study.chosen):
            paired = pairs(scores, arm, reference) if arm != reference else pd.DataFrame()
            if len(paired):
                about = {"data": data, "measure": measure, "class": own["class"].iloc[0]}
                about |= {"reference": reference, "arm": arm}
                rows.append({**about, "per": "case", **compare(paired, config.evaluation)})
    compared = pd.DataFrame(rows)
    if compared.empty:
        return compared
    corrected = [holm(family["p"]) for _, family in compared.groupby(FAMILY, sort=False)]
    compared["p_holm"] = pd.concat(corrected)
    return compared.astype(dict.fromkeys(("low", "high", "bootstrap_low", "bootstrap_high"), float))


def feature_verdicts(compared: pd.DataFrame, confidence: float) -> list[str]:
    """A sentence for each comparison."""
    counts = compared.groupby(FAMILY)["p"].count().to_dict() if len(compared) else {}
    several = len(compared) and compared["data"].nunique() > 1
    return [
        (f"on {row['data']}, " if several else "") + _verdict(row, confidence, counts[row["data"], row["reference"]])
        for row in compared.to_dict("records")
    ]


def _verdict(row: dict[Any, Any], confidence: float, tests: int) -> str:
    what = COMPARED[row["measure"]] + (f" of {class_words(row['class'])}" if row["measure"] in OF_CLASS else "")
    within = f"{confidence:.0%} interval {row['low']:.3g} to {row['high']:.3g}".replace("%", " %")
    within = within if known(row["low"]) else "no interval"
    runs = f"{row['runs']} paired run{'s' if row['runs'] > 1 else ''}"
    difference = f"{row['difference']:+.3g} against {row['reference']}"
    return f"{row['arm']}: {what} {difference}, {within}, {runs}: {_judgment(row, confidence, tests)}"


def _judgment(row: dict[Any, Any], confidence: float, tests: int) -> str:
    if not known(row["p"]):
        same = "the same difference throughout, of which there is nothing to test"
        return same if row["reason"] == "equal" else f"too few {row['reason']} for a test"
    if row["p_holm"] < 1 - confidence:
        return f"{'higher' if row['difference'] > 0 else 'lower'} than {row['reference']}"
    if row["p"] < 1 - confidence:
        return f"not distinguishable from {row['reference']} once all {tests} tests are counted (Holm's correction)"
    return f"not distinguishable from {row['reference']}"
