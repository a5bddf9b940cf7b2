"""Evaluation of a trained model on one part of the split, by case and by volume, beside the threshold baseline."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from tqdm import tqdm

from llm4seg.config.schema import Evaluation
from llm4seg.data.prepared import Prepared, distance_unit
from llm4seg.data.split import Split
from llm4seg.evaluation.confusion import Confusion
from llm4seg.evaluation.gains import gains
from llm4seg.evaluation.lesion_summary import summarize_lesions
from llm4seg.evaluation.masks import CaseMasks
from llm4seg.evaluation.overlays import draw_overlay
from llm4seg.evaluation.results import THRESHOLD_METRICS, EvaluationResult
from llm4seg.evaluation.summary import case_means, summarize
from llm4seg.evaluation.threshold_baseline import Interval, fit_intervals
from llm4seg.evaluation.volumes import add_slices, are_slices, by_volume, volume_metrics
from llm4seg.inference.grid_logits import in_place
from llm4seg.inference.prepared import Member
from llm4seg.inference.resample import resample
from llm4seg.objectives.metrics import Row, case_metrics, class_counts, overlap
from llm4seg.utils.errors import InputError
from llm4seg.utils.logs import bars_off

log = logging.getLogger(__name__)

Part = Literal["train", "val", "test"]


def evaluate(
    model: nn.Module,
    data: Prepared,
    split: Split,
    section: Evaluation,
    part: Part = "test",
    others: Sequence[Member] = (),
) -> EvaluationResult:
    """Metrics of a model on a part of the split, at the images' original resolution, beside the threshold baseline's.

    Slices of volumes are also scored per volume where all slices of each are in this part: `volumes` of the summary is
    like the summary, else None. `headline` is the table to look at first: that of volumes, if there is one. The
    baseline is fitted on the training part. With `others`, the model is the first of an ensemble; for that, and for
    each option of the section that can be left out, `gains` of the summary has the gain.

    Raises InputError when one of both parts is empty, and where the section's options do not fit the data.
    """
    for needed in ("train", part):
        if not getattr(split, needed):
            raise InputError(f"split.{needed}: found no case in the {needed} part; evaluation needs one or more")
    case_ids: tuple[str, ...] = getattr(split, part)
    intervals = fit_intervals(data, split.train)
    confusion = Confusion(data.scheme)
    rows, volumes = evaluate_cases(model, data, case_ids, section, f"evaluate {part}", others, confusion)
    baseline = [row for case_id in case_ids for row in evaluate_threshold_baseline(intervals, data, case_id)]
    volume_baseline = add_slices(data, baseline) if volumes else []
    unit = distance_unit(data.cases[case_id] for case_id in case_ids)
    about = {"part": part, "nsd_tolerance": section.nsd_tolerance, "distance_unit": unit}
    summary = about | _summary(rows, baseline, data.classes, intervals, section)
    if volumes:
        summary["headline"] = "volumes"
        summary["volumes"] = about | _summary(volumes, volume_baseline, data.classes, intervals, section)
    else:
        summary["headline"] = "slices" if are_slices(data, case_ids) else "cases"
        summary["volumes"] = None
    if found := _gains([Member(model, data), *others], case_ids, section, volumes or rows):
        summary["gains"] = found
    return EvaluationResult(rows, baseline, volumes, volume_baseline, summary, confusion)


def _gains(members: Sequence[Member], case_ids: Sequence[str], section: Evaluation, rows: list[Row]) -> dict[str, Any]:
    """For each option that is on, the gain of `rows` over what the evaluation without it gives; of an ensemble, over
    the mean of its members.
    """
    found = {}
    for option in ("tta", "postprocess"):
        if getattr(section, option):
            plain = section.model_copy(update={option: ()})
            found[option] = gains(rows, [_headline(members, case_ids, plain, f"without {option}")], section)
    if len(members) > 1:
        alone = [_headline([one], case_ids, section, f"model {k} alone") for k, one in enumerate(members, start=1)]
        found["ensemble"] = gains(rows, alone, section)
    return found


def _headline(members: Sequence[Member], case_ids: Sequence[str], section: Evaluation, title: str) -> list[Row]:
    """The rows of volumes, or where there are none, of cases."""
    first, *others = members
    rows, volumes = evaluate_cases(first.network, first.data, case_ids, section, f"evaluate {title}", others)
    return volumes or rows


def _summary(
    rows: list[Row], baseline: list[Row], classes: Sequence[str], intervals: Sequence[Interval], section: Evaluation
) -> dict[str, Any]:
    """`summarize` and `summarize_lesions` of the model's rows and, under `baseline`, `summarize` of the threshold
    baseline's, with its intervals.
    """
    summary = {**summarize(rows, section), "lesions": summarize_lesions(rows, section)}
    summary["baseline"] = summarize(baseline, section, THRESHOLD_METRICS)
    for name, interval in zip(classes, intervals, strict=True):
        summary["baseline"]["classes"][name] |= {"from": _finite(interval.low), "to": _finite(interval.high)}
    return summary


def evaluate_cases(
    model: nn.Module,
    data: Prepared,
    case_ids: Sequence[str],
    section: Evaluation,
    title: str | None = None,
    others: Sequence[Member] = (),
    confusion: Confusion | None = None,
) -> tuple[list[Row], list[Row]]:
    """`case_metrics` with case, group and unit in each row: of cases in their order, and of their volumes, where they
    are slices of whole ones. One volume is in memory at a time. `title`: of a progress bar; `others`: the other members
    of an ensemble; `confusion`: every case is added to it.
    """
    masks = CaseMasks([Member(model, data), *others], case_ids, section)
    rows: dict[str, list[Row]] = {}
    volumes: list[Row] = []
    start = time.monotonic()
    with tqdm(total=len(case_ids), desc=title, unit="case", disable=bars_off() if title else True) as progress:
        for members in by_volume(data, case_ids).values():
            predicted = masks.of(members)
            for case_id in members:
                rows[case_id] = _case_rows(data, case_id, predicted[case_id], section.nsd_tolerance)
                if confusion is not None:
                    confusion.add(predicted[case_id], data.original(case_id)[1])
                progress.update()
            if masks.of_volumes:
                volumes += volume_metrics(data, predicted, section.nsd_tolerance)
    log.debug("%d cases of %s evaluated in %.1f s", len(case_ids), data.name, time.monotonic() - start)
    return [row for case_id in case_ids for row in rows[case_id]], volumes


def _case_rows(data: Prepared, case_id: str, predicted_S: Tensor, nsd_tolerance: float) -> list[Row]:
    case = data.cases[case_id]
    _, labels_S = data.original(case_id)
    rows = case_metrics(predicted_S, labels_S, data.scheme, case.spacing, nsd_tolerance)
    return [{"case": case_id, "group": case.group, **row, "distance_unit": case.unit} for row in rows]


def evaluate_threshold_baseline(intervals: Sequence[Interval], data: Prepared, case_id: str) -> list[Row]:
    """Dice and IoU of the threshold baseline for a case, its intensities resampled as the model's logits are."""
    case = data.cases[case_id]
    shape = case.shape if case.grid is None else tuple(high - low for low, high in case.grid.crop)
    brightness_S = resample(data.resampled(case_id)[0][None, :1], shape)[0, 0]
    _, labels_S = data.original(case_id)
    rows = []
    for name, interval, reference in zip(data.classes, intervals, data.scheme.masks(labels_S), strict=True):
        found_S = interval.mask(brightness_S)
        if case.grid is not None:
            found_S = in_place(found_S, case.grid.crop, case.shape)
        predicted, _ = data.scheme.without_ignored(found_S, labels_S)
        ((tp, fp, fn),) = class_counts(predicted, reference, 1).tolist()
        about = {"case": case_id, "group": case.group, "class": name}
        rows.append({**about, **overlap(tp, fp, fn), "tp": tp, "fp": fp, "fn": fn})
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


def draw_examples(
    model: nn.Module,
    data: Prepared,
    rows: Sequence[Row],
    section: Evaluation,
    folder: Path,
    others: Sequence[Member] = (),
) -> None:
    """Write best.png, median.png and worst.png of the rows' cases to a new folder."""
    folder.mkdir(parents=True)
    chosen, case_ids = examples(rows), [*dict.fromkeys(row["case"] for row in rows)]
    masks = CaseMasks([Member(model, data), *others], case_ids, section)
    for role, (case_id, dice) in chosen.items():
        case = data.cases[case_id]
        predicted_S = masks.of_case(case_id)
        image_CS, labels_S = data.original(case_id)
        rank = f"{role.capitalize()}: " if len(chosen) > 1 else ""
        title = f"{rank}{case_id}, mean Dice {dice:.2f}"
        draw_overlay(folder / f"{role}.png", image_CS, labels_S, predicted_S, data.scheme, case.spacing, title)
