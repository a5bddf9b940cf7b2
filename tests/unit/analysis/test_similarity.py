"""CKA against NumPy's matrices of kernels, and what it must not change under."""

import math

import numpy as np
import pytest
import torch

from llm4seg.analysis.similarity import cka, relative_change

RANDOM = np.random.default_rng(0)
X, NOISE = RANDOM.normal(1, 2, (15, 6)), RANDOM.normal(0, 1, (15, 9))
Y = np.concatenate([X[:, :4] ** 2, NOISE[:, :3]], 1)


def hsic_unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, equation 5, with the kernels written out."""
    n = len(x)
    k, kernel = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(kernel, 0)
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ kernel @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ kernel) + middle - 2 / (n - 2) * one @ k @ kernel @ one) / (n * (n - 3)))


def hsic_biased(x: np.ndarray, y: np.ndarray) -> float:
    """Kornblith et al. 2019: tr(K H L H) with the centering matrix H."""
    center = np.eye(len(x)) - 1 / len(x)
    return float(np.trace(x @ x.T @ center @ y @ y.T @ center))


@pytest.mark.parametrize("unbiased", [True, False], ids=["unbiased", "biased"])
def test_cka_is_that_of_the_kernels(unbiased: bool) -> None:
    hsic = hsic_unbiased if unbiased else hsic_biased
    expected = hsic(X, Y) / math.sqrt(hsic(X, X) * hsic(Y, Y))
    assert cka(torch.from_numpy(X), torch.from_numpy(Y), unbiased) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("unbiased", [True, False], ids=["unbiased", "biased"])
def test_rotation_offset_and_scale_change_nothing(unbiased: bool) -> None:
    rotation = np.linalg.qr(RANDOM.normal(size=(6, 6)))[0]
    moved = torch.from_numpy(1e3 + 5 * X @ rotation)
    assert cka(torch.from_numpy(X), moved, unbiased) == pytest.approx(1, abs=1e-9)
    assert cka(moved, torch.from_numpy(Y), unbiased) == pytest.approx(
        cka(torch.from_numpy(X), torch.from_numpy(Y), unbiased), abs=1e-9
    )


def test_unrelated_features_of_great_width_are_near_zero_without_bias_alone() -> None:
    random = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(16, 64, generator=random), torch.randn(16, 64, generator=random)) for _ in range(50)]
    assert np.mean([cka(x, y) for x, y in pairs]) == pytest.approx(0, abs=0.03)
    assert np.mean([cka(x, y, unbiased=False) for x, y in pairs]) > 0.7


def test_constant_features_and_too_few_tokens_have_no_cka() -> None:
    x = torch.from_numpy(X)
    assert math.isnan(cka(torch.ones(15, 3), x))
    assert math.isnan(cka(x[:3], x[:3]))


def test_the_relative_change_is_a_ratio_of_norms() -> None:
    before = torch.tensor([[3.0, 0], [0, 4]])
    assert relative_change(before, before) == 0
    assert relative_change(before, before + torch.tensor([[0.0, 2.5], [0, 0]])) == pytest.approx(0.5)
    assert math.isnan(relative_change(torch.zeros(2, 2), before))
