"""Evaluation of a trained model on one part of the split, case by case, beside the threshold baseline."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import nn
from tqdm import tqdm

from llm4seg.config.schema import Evaluation
from llm4seg.data.prepared import Prepared, distance_unit
from llm4seg.data.split import Split
from llm4seg.evaluation.overlays import draw_overlay
from llm4seg.evaluation.results import THRESHOLD_METRICS, EvaluationResult
from llm4seg.evaluation.summary import case_means, summarize
from llm4seg.evaluation.threshold_baseline import Interval, fit_intervals
from llm4seg.inference.predictor import predict_case, resample
from llm4seg.objectives.metrics import Row, case_metrics, class_counts, overlap
from llm4seg.utils.errors import InputError

Part = Literal["train", "val", "test"]


def evaluate(
    model: nn.Module, data: Prepared, split: Split, section: Evaluation, part: Part = "test"
) -> EvaluationResult:
    """Metrics of a model on a part of the split, at the images' original resolution, beside the threshold baseline's.

    The baseline is fitted on the training part. Raises InputError when one of both parts is empty.
    """
    for needed in ("train", part):
        if not getattr(split, needed):
            raise InputError(f"split.{needed}: found no case in the {needed} part; evaluation needs one or more")
    case_ids: tuple[str, ...] = getattr(split, part)
    intervals = fit_intervals(data, split.train)
    rows, threshold_baseline = [], []
    for case_id in tqdm(case_ids, desc=f"evaluate {part}", unit="case", disable=None):
        rows += evaluate_case(model, data, case_id, section.nsd_tolerance)
        threshold_baseline += evaluate_threshold_baseline(intervals, data, case_id)
    unit = distance_unit(data.cases[case_id] for case_id in case_ids)
    summary = {"part": part, "nsd_tolerance": section.nsd_tolerance, "distance_unit": unit, **summarize(rows, section)}
    summary["baseline"] = summarize(threshold_baseline, section, THRESHOLD_METRICS)
    for name, interval in zip(data.classes, intervals, strict=True):
        summary["baseline"]["classes"][name] |= {"from": _finite(interval.low), "to": _finite(interval.high)}
    return EvaluationResult(rows, threshold_baseline, summary)


def evaluate_case(model: nn.Module, data: Prepared, case_id: str, nsd_tolerance: float) -> list[Row]:
    """`case_metrics` of the model's prediction for a case, with the case, its group and its unit in each row."""
    case = data.cases[case_id]
    predicted_S = predict_case(model, data.resampled(case_id)[0], case.shape)
    _, labels_S = data.original(case_id)
    rows = case_metrics(predicted_S, labels_S, data.classes, case.spacing, nsd_tolerance)
    return [{"case": case_id, "group": case.group, **row, "distance_unit": case.unit} for row in rows]


def evaluate_threshold_baseline(intervals: Sequence[Interval], data: Prepared, case_id: str) -> list[Row]:
    """Dice and IoU of the threshold baseline for a case, its intensities resampled as the model's logits are."""
    case = data.cases[case_id]
    brightness_S = resample(data.resampled(case_id)[0][None, :1], case.shape)[0, 0]
    _, labels_S = data.original(case_id)
    rows = []
    for label, interval in enumerate(intervals, start=1):
        ((tp, fp, fn),) = class_counts(interval.mask(brightness_S), labels_S == label, 1).tolist()
        name = {"case": case_id, "group": case.group, "class": data.classes[label - 1]}
        rows.append({**name, **overlap(tp, fp, fn), "tp": tp, "fp": fp, "fn": fn})
    return rows


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def examples(rows: Sequence[Row]) -> dict[str, tuple[str, float]]:
    """The best, the median and the worst case by mean Dice, with this Dice; of fewer than three cases, fewer roles."""
    known = {case: dice for case, dice in case_means(rows, "dice").items() if not math.isnan(dice)}
    ranked = sorted(known.items(), key=lambda item: -item[1])
    if not ranked:
        return {}
    places = {"best": 0}
    if len(ranked) > 2:
        places["median"] = len(ranked) // 2
    if len(ranked) > 1:
        places["worst"] = len(ranked) - 1
    return {role: ranked[place] for role, place in places.items()}


def draw_examples(model: nn.Module, data: Prepared, rows: Sequence[Row], folder: Path) -> None:
    """Write best.png, median.png and worst.png to a new folder."""
    folder.mkdir(parents=True)
    for role, (case_id, dice) in examples(rows).items():
        case = data.cases[case_id]
        predicted_S = predict_case(model, data.resampled(case_id)[0], case.shape)
        image_CS, labels_S = data.original(case_id)
        title = f"{role.capitalize()}: {case_id}, mean Dice {dice:.2f}"
        draw_overlay(folder / f"{role}.png", image_CS, labels_S, predicted_S, data.classes, case.spacing, title)
