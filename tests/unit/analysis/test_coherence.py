"""Coherence of gradients against every pair's cosine, and the closed-form adapter against NumPy's ridge regression."""

import itertools
import math

import numpy as np
import pytest
import torch

from llm4seg.analysis.coherence import coherence
from llm4seg.analysis.stitching import PENALTIES, explained_variance, stitch


def test_coherence_is_the_mean_cosine_of_all_pairs() -> None:
    gradients = [torch.from_numpy(one) for one in np.random.default_rng(0).normal(0.3, 1, (7, 4, 5))]
    flat = [one.reshape(-1).numpy() for one in gradients]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(flat, 2)]
    assert coherence(iter(gradients)) == pytest.approx(np.mean(cosines))


def test_one_way_and_right_angles() -> None:
    assert coherence([torch.ones(3), 5 * torch.ones(3), torch.zeros(3)]) == pytest.approx(1)
    assert coherence(torch.eye(4)) == pytest.approx(0)
    assert math.isnan(coherence([torch.ones(3)]))


def test_a_linear_relation_is_found_whatever_the_scales() -> None:
    random = torch.Generator().manual_seed(0)
    source = torch.randn(200, 5, generator=random) * torch.tensor([1e-3, 1, 1e3, 1, 1]) + 10
    target = source @ torch.randn(5, 3, generator=random) - 2
    layer = stitch(source, target)
    assert explained_variance(layer(source), target) == pytest.approx(1, abs=1e-6)
    assert (layer.in_features, layer.out_features, layer.weight.dtype) == (5, 3, torch.float32)


def test_the_penalty_is_that_of_generalized_cross_validation() -> None:
    random = np.random.default_rng(1)
    source, noise = random.normal(2, 3, (40, 25)), random.normal(0, 2, (40, 2))
    target = source[:, :2] + noise
    z, y = (source - source.mean(0)) / source.std(0), target - target.mean(0)
    errors, fits = [], []
    for penalty in PENALTIES:
        hat = z @ np.linalg.solve(z.T @ z / 40 + penalty * np.eye(25), z.T / 40)
        freedom = np.trace(hat) + 1  # and the mean
        errors.append(((y - hat @ y) ** 2).sum() / 40 / (1 - freedom / 40) ** 2)
        fits.append(hat @ y + target.mean(0))
    best = int(np.argmin(errors))
    assert 0 < best < len(PENALTIES) - 1
    found = stitch(torch.from_numpy(source), torch.from_numpy(target))(torch.from_numpy(source))
    np.testing.assert_allclose(found.detach().numpy(), fits[best], rtol=1e-6)


def test_explained_variance_is_zero_for_the_mean_and_below_for_worse() -> None:
    target = torch.tensor([[0.0, 1], [2, 3], [4, 8]])
    assert explained_variance(target.mean(0).expand(3, 2), target) == pytest.approx(0)
    assert explained_variance(-target, target) < 0
