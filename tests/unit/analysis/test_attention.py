"""Statistics of attention weights worked out by hand."""

import math

import numpy as np
import pytest
import torch

from llm4seg.analysis.attention import attention_statistics

GRID = (2, 3)
MASK_T = torch.tensor([False, True, True, False, False, False])


def test_attention_to_oneself() -> None:
    found = attention_statistics(torch.eye(6).repeat(2, 1, 1), GRID, MASK_T)
    assert found == {
        "distance": 0.0,
        "entropy": 0.0,
        "first": pytest.approx(1 / 6),
        "own": 1.0,
        "mask_excess": pytest.approx(1 - 2 / 6),
    }


def test_uniform_attention() -> None:
    found = attention_statistics(torch.full((1, 6, 6), 1 / 6), GRID, MASK_T)
    cells = [(row, column) for row in range(2) for column in range(3)]
    distances = [math.dist(one, other) for one in cells for other in cells]
    assert found["distance"] == pytest.approx(np.mean(distances))
    assert found["entropy"] == pytest.approx(math.log(6))
    assert (found["first"], found["own"]) == pytest.approx((1 / 6, 1 / 6))
    assert found["mask_excess"] == pytest.approx(0, abs=1e-7)


def test_heads_are_averaged_and_the_sink_is_seen() -> None:
    sink = torch.zeros(6, 6)
    sink[:, 0] = 1
    found = attention_statistics(torch.stack([sink, torch.eye(6)]), GRID, MASK_T)
    assert found["first"] == pytest.approx((1 + 1 / 6) / 2)
    assert found["mask_excess"] == pytest.approx((0 + 1) / 2 - 2 / 6)
    assert found["distance"] == pytest.approx((0 + 1 + 2 + 1 + math.sqrt(2) + math.sqrt(5)) / 6 / 2)


def test_distances_in_a_volume_and_no_mask() -> None:
    weights = torch.zeros(1, 8, 8)
    weights[0, torch.arange(8), torch.arange(7, -1, -1)] = 1  # to the opposite corner
    found = attention_statistics(weights, (2, 2, 2))
    assert found["distance"] == pytest.approx(math.sqrt(3))
    assert math.isnan(found["mask_excess"])
