"""Entropy, effective rank and LSVR of matrices whose singular values are known."""

import math

import numpy as np
import pytest
import torch

from llm4seg.analysis.spectrum import dataset_spectrum, spectrum


def test_tokens_of_one_direction_have_rank_one() -> None:
    found = spectrum(torch.outer(torch.arange(1.0, 9), torch.tensor([1.0, 2, 0, -1])))
    assert (found.effective_rank, found.lsvr) == pytest.approx((1, 0), abs=1e-9)
    assert (found.tokens, found.width) == (8, 4)
    assert found.share == pytest.approx(1 / 4)


def test_orthogonal_tokens_of_one_norm_have_full_rank() -> None:
    found = spectrum(3 * torch.linalg.qr(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)))[0].T)
    assert (found.effective_rank, found.share) == pytest.approx((5, 1), rel=1e-5)
    assert (found.entropy, found.lsvr) == pytest.approx((math.log(5), math.log(5)), rel=1e-5)


@pytest.mark.parametrize("centered", [False, True], ids=["uncentered", "centered"])
def test_the_measures_are_those_of_numpys_singular_values(centered: bool) -> None:
    tokens = np.random.default_rng(0).normal(2, 1, (20, 6))
    singular = np.linalg.svd(tokens - tokens.mean(0) if centered else tokens, compute_uv=False)
    p = singular / singular.sum()
    found = spectrum(torch.from_numpy(tokens), centered)
    expected = -(p * np.log(p)).sum()
    assert found.entropy == pytest.approx(expected)
    assert found.effective_rank == pytest.approx(np.exp(expected))
    assert found.lsvr == pytest.approx(-np.log(p[0]))


def test_nothing_has_no_spectrum() -> None:
    assert math.isnan(spectrum(torch.ones(5, 3), centered=True).effective_rank)


def test_features_of_a_data_set_are_normalized_then_centered_each() -> None:
    features = np.random.default_rng(1).normal(1, 2, (30, 8))
    unit = features / np.sqrt((features**2).sum(1, keepdims=True))
    singular = np.linalg.svd(unit - unit.mean(1, keepdims=True), compute_uv=False)
    p = singular / singular.sum()
    p = p[p > 0]
    found = dataset_spectrum(torch.from_numpy(features))
    assert found.entropy == pytest.approx(-(p * np.log(p)).sum())
    assert found.lsvr == pytest.approx(-np.log(p[0]))
