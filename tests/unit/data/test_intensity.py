"""Normalization of volumes when they are read, with values worked out by hand."""

import numpy as np
import pytest
import torch

from llm4seg.data.intensity import Intensity, VolumeGrid, foreground_statistics

GRID = VolumeGrid(
    ((0, 1),), (1,), mean=(5.0, 10.0), std=(2.0, 0.0), range=(-10.0, 30.0), voxels={}, dtype="int16", block=(1,)
)
IMAGE = torch.tensor([[[[1, 5, 9]]], [[[10, 10, 10]]]], dtype=torch.int16)


def test_zscore_is_by_the_case_and_the_channel() -> None:
    result = Intensity("zscore")(IMAGE, GRID)
    assert result.dtype == torch.float32
    assert result[0].flatten().tolist() == [-2, 0, 2]
    assert not result[1].any()  # constant: no division by zero


def test_window_clips_and_unit_does_not() -> None:
    assert Intensity("window", (0.0, 8.0))(IMAGE, GRID)[0].flatten().tolist() == [0.125, 0.625, 1]
    assert Intensity("unit")(IMAGE, GRID)[0].flatten().tolist() == pytest.approx([11 / 40, 15 / 40, 19 / 40])


def test_what_is_read_stays_as_it_is() -> None:
    image = IMAGE.float()
    Intensity("zscore")(image, GRID)
    assert torch.equal(image, IMAGE.float())


def test_ct_is_by_percentiles_mean_and_deviation_of_what_is_labeled() -> None:
    values = np.random.default_rng(0).normal(40, 20, (2, 5000))
    statistics = foreground_statistics([(values[:, :3000], 3000), (values[:, 3000:], 2000)])
    for found, expected in zip(statistics, values, strict=True):
        low, high = np.percentile(expected, [0.5, 99.5])
        assert (found.low, found.high) == pytest.approx((low, high), abs=1)
        assert (found.mean, found.std) == pytest.approx((expected.mean(), expected.std()))
    image = torch.tensor([-1000.0, 40.0, 1000.0]).expand(2, 1, 1, 3)
    result = Intensity("ct", None, statistics)(image, GRID)
    first = statistics[0]
    assert result[0].flatten().tolist() == pytest.approx(
        [(value - first.mean) / first.std for value in (first.low, 40.0, first.high)], abs=1e-6
    )


def test_a_case_counts_with_all_its_labeled_voxels() -> None:
    """Of a large organ 2 of 300 voxels were stored, of a small one both of 2."""
    statistics = foreground_statistics(
        [(np.array([[1.0, 3.0]]), 300), (np.array([[100.0, 200.0]]), 2), (np.zeros((1, 0)), 0)]
    )
    assert statistics[0].mean == pytest.approx((300 * 2 + 2 * 150) / 302)
    assert (statistics[0].low, statistics[0].high) == (1.0, 100.0)
    assert foreground_statistics([(np.zeros((1, 0)), 0)]) == ()


def test_a_normalization_is_kept_as_json() -> None:
    statistics = foreground_statistics([(np.array([[1.0, 3.0]]), 300)])
    for one in (Intensity("ct", None, statistics), Intensity("window", (0.0, 1.0)), Intensity("zscore")):
        assert Intensity.parse(one.plain()) == one
