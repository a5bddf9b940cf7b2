"""Segmentation metrics: counts during training, Dice, IoU, HD95 and others for each case and class.

For masks with tp, fp and fn pixels: Dice = 2 tp / (2 tp + fp + fn), IoU = tp / (tp + fp + fn),
precision = tp / (tp + fp), recall = tp / (tp + fn). HD95 (the larger of the two directed 95th percentiles of surface
distance) and NSD (normalized surface Dice: the share of both surfaces within a tolerance of the other) are MONAI's.
Distances are in the unit of the case's spacing: mm, or px where the size of a pixel is not known.
Reference: Maier-Hein, Reinke et al., Metrics reloaded, Nature Methods 2024.

Empty masks follow two rules: 0 / 0 is NaN, and a surface that is missing on one side is as wrong as can be.

| reference | prediction | Dice, IoU | precision | recall | HD95                | NSD | volume error |
|-----------|------------|-----------|-----------|--------|---------------------|-----|--------------|
| empty     | empty      | NaN       | NaN       | NaN    | NaN                 | NaN | NaN          |
| present   | empty      | 0         | NaN       | 0      | the image's diagonal | 0   | -1           |
| empty     | present    | 0         | 0         | NaN    | the image's diagonal | 0   | NaN          |

NaN is left out of all means. The three kinds of case are counted as `absent`, `missed` and `false`. The volume error is
(predicted - reference) / reference, of areas in 2-D. Lesions are counted in `lesions.py`; an empty mask has none.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.objectives.lesions import lesion_counts

Row = dict[str, Any]
METRICS = ("dice", "iou", "precision", "recall", "hd95", "nsd")


def class_counts(predicted_NS: Tensor, labels_NS: Tensor, classes: int) -> Tensor:
    """True positives, false positives and false negatives of labels 1 to `classes`: int64 (classes, 3).

    Counts of several batches or workers may be added. Both inputs hold labels 0 to `classes`.
    """
    if not labels_NS.is_cpu:
        return compared_counts(predicted_NS, labels_NS, classes)
    labels = classes + 1
    pairs = labels_NS.reshape(-1).long() * labels + predicted_NS.reshape(-1).long()
    confusion = torch.bincount(pairs, minlength=labels**2).reshape(labels, labels)
    both = confusion.diagonal()
    return torch.stack([both, confusion.sum(0) - both, confusion.sum(1) - both], dim=1)[1:]


def compared_counts(predicted_NS: Tensor, labels_NS: Tensor, classes: int) -> Tensor:
    """`class_counts` by comparisons, several for each class: on a GPU the host would wait for `bincount`."""
    counts = list[Tensor]()
    for label in range(1, classes + 1):
        predicted, reference = predicted_NS == label, labels_NS == label
        both = (predicted & reference).sum()
        counts += [both, predicted.sum() - both, reference.sum() - both]
    return torch.stack(counts).reshape(classes, 3)


def scheme_counts(predicted_NS: Tensor, labels_NS: Tensor, scheme: LabelScheme) -> Tensor:
    """`class_counts` of a scheme's classes or regions: int64 (classes, 3); ignored pixels are not counted."""
    predicted_NS, labels_NS = scheme.without_ignored(predicted_NS, labels_NS)
    if not scheme.regions:
        return class_counts(predicted_NS, labels_NS, len(scheme.classes))
    both = zip(scheme.masks(predicted_NS), scheme.masks(labels_NS), strict=True)
    return torch.cat([class_counts(predicted, reference, 1) for predicted, reference in both])


def dice_from_counts(counts: Tensor) -> Tensor:
    """Dice of each class from (classes, 3) counts: float64 (classes,), NaN for a class that never occurs."""
    tp, fp, fn = counts.double().unbind(1)
    return 2 * tp / (2 * tp + fp + fn)


def overlap(tp: int, fp: int, fn: int) -> Row:
    """The metrics of counts alone: Dice, IoU, precision and recall; 0 / 0 is NaN."""

    def ratio(part: int, total: int) -> float:
        return part / total if total else math.nan

    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "iou": ratio(tp, tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
    }


def case_metrics(
    predicted_S: Tensor, labels_S: Tensor, scheme: LabelScheme, spacing: Sequence[float], nsd_tolerance: float
) -> list[Row]:
    """A row per class: METRICS, the counts, both masks' sizes, areas (2-D) or volumes (3-D), the error of the predicted
    size relative to the reference's, and the counts of lesions.

    `predicted_S` and `labels_S` hold labels of the scheme. Distances, sizes and `nsd_tolerance` are in the unit of
    `spacing`. Where the reference is ignored, nothing is counted, and both masks are background.
    """
    rows = []
    pixel = math.prod(spacing)
    predicted_S, labels_S = scheme.without_ignored(predicted_S, labels_S)
    masks = zip(scheme.classes, scheme.masks(predicted_S), scheme.masks(labels_S), strict=True)
    counts = scheme_counts(predicted_S, labels_S, scheme).tolist()
    for (name, predicted, reference), (tp, fp, fn) in zip(masks, counts, strict=True):
        row = {"class": name, **overlap(tp, fp, fn)}
        row |= _surface(predicted, reference, spacing, nsd_tolerance)
        row |= {"tp": tp, "fp": fp, "fn": fn, "reference_size": (tp + fn) * pixel, "predicted_size": (tp + fp) * pixel}
        row |= {"volume_error": (fp - fn) / (tp + fn) if tp + fn else math.nan, **lesion_counts(predicted, reference)}
        rows.append(row)
    return rows


def _surface(predicted_S: Tensor, reference_S: Tensor, spacing: Sequence[float], tolerance: float) -> Row:
    """HD95 and NSD of two masks, with the table's rules for empty ones."""
    predicted, reference = bool(predicted_S.any()), bool(reference_S.any())
    if not predicted and not reference:
        return {"hd95": math.nan, "nsd": math.nan}
    if not predicted or not reference:
        return {"hd95": math.hypot(*(n * step for n, step in zip(reference_S.shape, spacing, strict=True))), "nsd": 0.0}
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice  # here: the import takes seconds

    masks = predicted_S[None, None].float(), reference_S[None, None].float()
    spaced: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
    with warnings.catch_warnings(action="ignore"):
        hd95 = compute_hausdorff_distance(*masks, percentile=95, **spaced)
        nsd = compute_surface_dice(*masks, class_thresholds=[tolerance], **spaced)
    return {"hd95": hd95.item(), "nsd": nsd.item()}
