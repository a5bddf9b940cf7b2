"""Metrics against numbers worked out by hand, and against MONAI's own."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.objectives.metrics import METRICS, Row, case_metrics, class_counts, dice_from_counts, scheme_counts


def labels(*rows: str) -> Tensor:
    return torch.tensor([[int(digit) for digit in row] for row in rows], dtype=torch.uint8)


def square(start: int, stop: int, size: int = 10, dims: int = 2) -> Tensor:
    mask = torch.zeros((size,) * dims, dtype=torch.uint8)
    mask[(slice(start, stop),) * dims] = 1
    return mask


def one_class(
    predicted: Tensor, reference: Tensor, *, mm: tuple[float, ...] = (1.0, 1.0), tolerance: float = 1.0
) -> Row:
    (row,) = case_metrics(predicted, reference, LabelScheme(("lesion",)), mm, tolerance)
    return row


def test_counts_of_two_classes() -> None:
    predicted, reference = labels("0112", "0122"), labels("0111", "2022")
    assert class_counts(predicted[None], reference[None], 2).tolist() == [[2, 1, 1], [2, 1, 1]]


def test_counts_of_batches_add_up_to_those_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, reference = torch.randint(0, 4, (2, 6, 5, 4, 3), generator=generator)
    whole = class_counts(predicted, reference, 3)
    assert torch.equal(whole, sum(class_counts(predicted[at : at + 2], reference[at : at + 2], 3) for at in (0, 2, 4)))


def test_dice_counts_the_pixels_of_all_cases_together() -> None:
    counts = torch.tensor([[6, 2, 2], [0, 0, 0], [0, 3, 0]])
    dice = dice_from_counts(counts).tolist()
    assert dice[0] == pytest.approx(12 / 16)
    assert math.isnan(dice[1])
    assert dice[2] == 0


def test_overlap_by_hand() -> None:
    row = one_class(labels("1110", "0000"), labels("0111", "0010"))  # tp 2, fp 1, fn 2
    assert (row["tp"], row["fp"], row["fn"]) == (2, 1, 2)
    assert row["dice"] == pytest.approx(4 / 7)
    assert row["iou"] == pytest.approx(2 / 5)
    assert row["precision"] == pytest.approx(2 / 3)
    assert row["recall"] == pytest.approx(2 / 4)


def test_a_perfect_prediction() -> None:
    row = one_class(square(2, 7), square(2, 7))
    assert [row[metric] for metric in METRICS] == [1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize(("mm", "distance"), [((1.0, 1.0), 3.0), ((2.0, 0.5), 6.0), ((0.5, 2.0), 1.5)])
def test_surfaces_by_hand_with_anisotropic_spacing(mm: tuple[float, float], distance: float) -> None:
    """Two rows of pixels, three apart: every surface distance is three pixels along the first axis."""
    predicted, reference = torch.zeros(2, 8, 6, dtype=torch.uint8)
    predicted[1, :], reference[4, :] = 1, 1
    assert one_class(predicted, reference, mm=mm)["hd95"] == pytest.approx(distance)
    assert one_class(predicted, reference, mm=mm, tolerance=distance - 0.01)["nsd"] == 0
    assert one_class(predicted, reference, mm=mm, tolerance=distance)["nsd"] == 1


def test_hd95_leaves_out_the_worst_twentieth() -> None:
    """One stray pixel among many raises the largest distance, not the 95th percentile."""
    reference = square(5, 35, 64)
    predicted = reference.clone()
    predicted[60, 60] = 1
    assert one_class(predicted, reference)["hd95"] == 0


def test_sizes_are_in_mm() -> None:
    row = one_class(square(2, 6), square(2, 5), mm=(0.5, 3.0))
    assert (row["predicted_size"], row["reference_size"]) == (16 * 1.5, 9 * 1.5)
    row = one_class(square(2, 6, dims=3), square(2, 5, dims=3), mm=(0.5, 3.0, 2.0))
    assert (row["predicted_size"], row["reference_size"]) == (64 * 3, 27 * 3)


def test_both_empty_says_nothing() -> None:
    row = one_class(square(0, 0), square(0, 0))
    assert all(math.isnan(row[metric]) for metric in METRICS)


def test_a_missed_class_is_as_wrong_as_can_be() -> None:
    row = one_class(square(0, 0), square(2, 5), mm=(3.0, 4.0))
    assert (row["dice"], row["iou"], row["recall"], row["nsd"]) == (0, 0, 0, 0)
    assert math.isnan(row["precision"])
    assert row["hd95"] == pytest.approx(math.hypot(30, 40))


def test_a_class_found_where_there_is_none_is_as_wrong_as_can_be() -> None:
    row = one_class(square(2, 5), square(0, 0), mm=(3.0, 4.0))
    assert (row["dice"], row["iou"], row["precision"], row["nsd"]) == (0, 0, 0, 0)
    assert math.isnan(row["recall"])
    assert row["hd95"] == pytest.approx(math.hypot(30, 40))


@pytest.mark.parametrize(("shape", "mm"), [((40, 31), (0.7, 1.3)), ((17, 14, 12), (0.8, 0.8, 2.5))])
def test_equals_monai(shape: tuple[int, ...], mm: tuple[float, ...], recwarn: pytest.WarningsRecorder) -> None:
    from monai.metrics import compute_hausdorff_distance, compute_iou, compute_surface_dice
    from monai.metrics.confusion_matrix import compute_confusion_matrix_metric, get_confusion_matrix
    from monai.networks.utils import one_hot

    predicted, reference = random_blobs(shape, 0), random_blobs(shape, 1)
    recwarn.clear()
    rows = case_metrics(predicted, reference, LabelScheme(("a", "b")), mm, 1.5)
    assert not recwarn.list
    masks = [one_hot(mask[None, None].long(), 3).float() for mask in (predicted, reference)]
    confusion = get_confusion_matrix(*masks, include_background=False)
    expected = {
        "dice": compute_confusion_matrix_metric("f1 score", confusion),
        "iou": compute_iou(*masks, include_background=False),
        "precision": compute_confusion_matrix_metric("precision", confusion),
        "recall": compute_confusion_matrix_metric("sensitivity", confusion),
        "hd95": compute_hausdorff_distance(*masks, percentile=95, spacing=mm),
        "nsd": compute_surface_dice(*masks, class_thresholds=[1.5, 1.5], spacing=mm),
    }
    for metric, values in expected.items():
        assert [row[metric] for row in rows] == pytest.approx(values[0].tolist(), rel=1e-6), metric


def random_blobs(shape: tuple[int, ...], seed: int) -> Tensor:
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return torch.from_numpy(np.digitize(field, np.quantile(field, [0.6, 0.85])).astype(np.uint8))


def test_regions_and_ignored_pixels_by_hand() -> None:
    """Whole is labels 1 and 2, core is 2; nothing of the last column counts."""
    scheme = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2), ignore=True)
    reference = torch.tensor([[1, 2, 2, 255], [0, 0, 1, 255]], dtype=torch.uint8)
    predicted = torch.tensor([[1, 1, 2, 2], [1, 0, 0, 1]], dtype=torch.uint8)
    assert scheme_counts(predicted, reference, scheme).tolist() == [[3, 1, 1], [1, 0, 1]]
    whole, core = case_metrics(predicted, reference, scheme, (1.0, 2.0), 1.0)
    assert (whole["dice"], core["dice"]) == (6 / 8, 2 / 3)
    assert (whole["reference_size"], whole["predicted_size"]) == (8.0, 8.0)
    cropped = case_metrics(predicted[:, :3], reference[:, :3], scheme, (1.0, 2.0), 1.0)
    assert [row["nsd"] for row in cropped] == [whole["nsd"], core["nsd"]]
