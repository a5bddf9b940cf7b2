"""Lesions against hand-drawn masks, a flood fill and SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter

from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.objectives.lesions import COUNTS, lesion_counts
from llm4seg.objectives.metrics import case_metrics


def mask(*rows: str) -> torch.Tensor:
    return torch.tensor([[one == "#" for one in row] for row in rows])


def counts(predicted: torch.Tensor, reference: torch.Tensor) -> tuple[int, ...]:
    found = lesion_counts(predicted, reference)
    return tuple(found[name] for name in COUNTS)


def test_found_missed_and_false_by_hand() -> None:
    """Three lesions: one touched by a pixel, one missed, one cut in two by the prediction; one false piece."""
    reference = mask("##...###", "##......", "....#...", "........", "#.......")
    predicted = mask("#....#.#", "........", "........", "......##", "#.......")
    assert counts(predicted, reference) == (4, 5, 3, 1)


def test_corners_connect() -> None:
    assert counts(mask("#..", ".#.", "..#"), mask("#..", ".#.", "..#")) == (1, 1, 1, 0)
    corner = torch.zeros(4, 4, 4, dtype=torch.bool)
    corner[1, 1, 1] = corner[2, 2, 2] = True
    assert counts(corner, corner) == (1, 1, 1, 0)


def test_one_piece_over_two_lesions_finds_both() -> None:
    assert counts(mask("#####"), mask("#...#")) == (2, 1, 2, 0)


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)])
def test_empty_masks(shape: tuple[int, ...]) -> None:
    none, one = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    one[(-1,) * len(shape)] = True
    assert counts(none, none) == (0, 0, 0, 0)
    assert counts(none, one) == (1, 0, 0, 0)
    assert counts(one, none) == (0, 1, 0, 1)


def simpleitk_counts(predicted: np.ndarray, reference: np.ndarray) -> tuple[int, ...]:
    """The same counts, component after component, by SimpleITK."""
    predicted_pieces, pieces = (
        sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(one.astype(np.uint8)), True))
        for one in (predicted, reference)
    )
    found = sum(predicted[pieces == piece].any() for piece in range(1, pieces.max() + 1))
    false = sum(not reference[predicted_pieces == piece].any() for piece in range(1, predicted_pieces.max() + 1))
    return int(pieces.max()), int(predicted_pieces.max()), int(found), int(false)


@pytest.mark.parametrize("shape", [(60, 50), (24, 20, 16)])
def test_equals_simpleitk(shape: tuple[int, ...]) -> None:
    for seed in range(4):
        fields = [gaussian_filter(np.random.default_rng(seed + k).normal(size=shape), 1) for k in (0, 100)]
        fields[0] += 0.7 * fields[1]
        predicted, reference = (field > np.quantile(field, 0.9) for field in fields)
        expected = simpleitk_counts(predicted, reference)
        assert expected[2] < expected[0]
        assert expected[3] > 0
        assert counts(torch.from_numpy(predicted), torch.from_numpy(reference)) == expected


def test_rows_of_regions_leave_out_what_is_ignored() -> None:
    """Whole is labels 1 and 2, core is 2: one lesion of the whole, two of the core; the last column counts nowhere."""
    scheme = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2), ignore=True)
    reference = torch.tensor([[2, 1, 2, 0, IGNORE], [0, 0, 0, 0, IGNORE]], dtype=torch.uint8)
    predicted = torch.tensor([[2, 2, 0, 0, 1], [0, 0, 0, 0, 2]], dtype=torch.uint8)
    whole, core = case_metrics(predicted, reference, scheme, (1.0, 1.0), 1.0)
    assert [whole[name] for name in COUNTS] == [1, 1, 1, 0]
    assert [core[name] for name in COUNTS] == [2, 1, 1, 0]
    assert whole["volume_error"] == pytest.approx(-1 / 3)
    assert core["volume_error"] == 0
