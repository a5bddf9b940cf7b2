"""The linear probe: planted masks, chance, and the closed form by NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from llm4seg.analysis.probe import PENALTIES, Moments, balanced_accuracy, deal_folds, fit_probe

IMAGES, TOKENS, WIDTH = 20, 40, 6


def images(planted: float, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Tokens, far from zero and of very different scales, and masks of a quarter of them; one entry holds the mask."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(IMAGES):
        mask = random.random(TOKENS) < 0.25
        tokens = random.normal(size=(TOKENS, WIDTH)) + planted * np.outer(mask, np.arange(WIDTH) == 2)
        made.append((torch.from_numpy(1000 + tokens * 10.0 ** np.arange(-3, WIDTH - 3)), torch.from_numpy(mask)))
    return made


def moments_of(data: list[tuple[Tensor, Tensor]]) -> Moments:
    moments = Moments(WIDTH)
    for number, (tokens_TD, mask_T) in enumerate(data):
        moments.add(tokens_TD, mask_T, number % 5)
    return moments


def together(data: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([tokens for tokens, _ in data]), torch.cat([mask for _, mask in data])


def score(planted: float, shuffle: bool = False) -> float:
    probe = fit_probe(moments_of(images(planted)))
    tokens, mask = together(images(planted, seed=1))
    if shuffle:
        tokens = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))]
    return balanced_accuracy(probe(tokens), mask)


def test_a_mask_in_the_tokens_is_found() -> None:
    assert score(planted=20) == 1


def test_shuffled_tokens_and_tokens_without_the_mask_score_chance() -> None:
    assert score(planted=20, shuffle=True) == pytest.approx(0.5, abs=0.06)
    assert score(planted=0) == pytest.approx(0.5, abs=0.06)


def by_hand(data: list[tuple[Tensor, Tensor]], penalty: float) -> tuple[np.ndarray, float]:
    """Weighted ridge regression of tokens standardized with equal weight for both classes, by its normal equations."""
    tokens, mask = (one.numpy() for one in together(data))
    weight = np.where(mask, 0.5 / mask.sum(), 0.5 / (~mask).sum())
    mean = weight @ tokens
    deviation = np.sqrt(weight @ (tokens - mean) ** 2)
    z, y = (tokens - mean) / deviation, np.where(mask, 1.0, -1.0)
    matrix = z.T @ (weight[:, None] * z) + penalty * np.eye(WIDTH)
    coefficients = np.linalg.solve(matrix, z.T @ (weight * y)) / deviation
    return coefficients, float(-coefficients @ mean)


def test_the_fit_and_the_choice_of_its_penalty_are_those_of_the_tokens_themselves() -> None:
    data = images(planted=1)
    errors = []
    for penalty in PENALTIES:
        total = 0.0
        for fold in range(5):
            coefficients, bias = by_hand([one for n, one in enumerate(data) if n % 5 != fold], penalty)
            tokens, mask = together(data[fold::5])
            wrong = (tokens.numpy() @ coefficients + bias - np.where(mask, 1, -1)) ** 2
            total += (wrong[mask].mean() + wrong[~mask].mean()) / 2
        errors.append(total)
    probe = fit_probe(moments_of(data))
    assert probe.penalty == PENALTIES[int(np.argmin(errors))]
    coefficients, bias = by_hand(data, probe.penalty)
    assert probe.weight == pytest.approx(coefficients, rel=1e-5)
    assert probe.bias == pytest.approx(bias, rel=1e-5)


def test_a_constant_entry_changes_nothing() -> None:
    data = images(planted=1)
    moments = Moments(WIDTH + 1)
    for number, (tokens_TD, mask_T) in enumerate(data):
        moments.add(torch.cat([tokens_TD, torch.full((TOKENS, 1), 7.0)], 1), mask_T, number % 5)
    found, expected = fit_probe(moments), fit_probe(moments_of(data))
    assert found.weight[-1] == 0
    assert found.weight[:-1] == pytest.approx(expected.weight)


def test_balanced_accuracy_is_the_mean_of_both_recalls() -> None:
    mask = torch.tensor([True, True, False, False, False, False])
    assert balanced_accuracy(torch.tensor([True, False, False, False, False, True]), mask) == (0.5 + 0.75) / 2
    assert balanced_accuracy(torch.zeros(6, dtype=torch.bool), mask) == 0.5


def test_groups_are_dealt_to_folds_whole() -> None:
    assert deal_folds(["a", "b", "a", "c", "d", "e", "f"]) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 0}
    with pytest.raises(ValueError, match="found 1, allowed: 2 or more"):
        deal_folds(["a", "a"])


def test_without_tokens_of_both_classes_there_is_no_probe() -> None:
    moments = Moments(3)
    moments.add(torch.randn(4, 3), torch.zeros(4, dtype=torch.bool), 0)
    with pytest.raises(ValueError, match="found 0 tokens inside and 4 outside"):
        fit_probe(moments)
    moments.add(torch.randn(4, 3), torch.ones(4, dtype=torch.bool), 1)
    with pytest.raises(ValueError, match="found none that can be left out"):
        fit_probe(moments)
