"""The power of a study by simulation: differences of the mixed model, tested by its closed form."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llm4seg.config.schema import Spread
from llm4seg.study.mixed_model import ENOUGH_RUNS, ENOUGH_UNITS

Array = NDArray[np.float64]
MOST_REPEATS = 64  # the most that `repeats_needed` tries


def simulate(spread: Spread, repeats: int, folds: int, units: int, tables: int, seed: int) -> Array:
    """Tables of differences without an effect, (tables, folds, repeats, units of a fold)."""
    random = np.random.default_rng(seed)
    shape = (tables, folds, repeats, units)
    of_folds = random.normal(0, spread.fold if folds > 1 else 0, (tables, folds, 1, 1))
    runs = random.normal(0, spread.run, (tables, folds, repeats, 1))
    cases = random.normal(0, spread.case, (tables, folds, 1, units))
    return np.asarray(of_folds + runs + cases + random.normal(0, spread.rest, shape))


def test(tables: Array) -> tuple[Array, Array, Array]:
    """Mean, standard error and degrees of freedom of each table: of one fold, an analysis of variance with random runs
    and units; of several, Student's t over the folds' means.
    """
    _, folds, repeats, units = tables.shape
    mean = tables.mean(axis=(1, 2, 3))
    if folds > 1:
        of_fold = tables.mean(axis=(2, 3))
        return mean, of_fold.std(axis=1, ddof=1) / folds**0.5, np.full(len(mean), folds - 1.0)
    table = tables[:, 0] - mean[:, None, None]
    of_run, of_unit = table.mean(axis=2, keepdims=True), table.mean(axis=1, keepdims=True)
    dfs = repeats - 1, units - 1, (repeats - 1) * (units - 1)
    run = (of_run**2).sum(axis=(1, 2)) * units / dfs[0]  # mean squares
    unit = (of_unit**2).sum(axis=(1, 2)) * repeats / dfs[1]
    rest = ((table - of_run - of_unit) ** 2).sum(axis=(1, 2)) / dfs[2]
    square = np.maximum(run + unit - rest, np.maximum(run, unit))  # an estimated variance below zero is one of zero
    df = square**2 / (run**2 / dfs[0] + unit**2 / dfs[1] + rest**2 / dfs[2])
    return mean, (square / (repeats * units)) ** 0.5, df


def power(tables: Array, effect: float, alpha: float) -> float:
    """The power: the share of tables in which an effect of this size is significant."""
    from scipy.stats import t

    mean, error, df = test(tables)
    return float(np.mean(np.abs(mean + effect) > error * t.ppf(1 - alpha / 2, df)))


def detectable(tables: Array, wanted: float, alpha: float) -> float:
    """The smallest effect that is detected with the wanted power."""
    low, high = 0.0, float(tables.std())
    while power(tables, high, alpha) < wanted:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if power(tables, middle, alpha) < wanted else (low, middle)
    return high


def repeats_needed(
    spread: Spread, folds: int, units: int, effect: float, wanted: float, alpha: float, tables: int, seed: int
) -> int | None:
    """The fewest repeats that detect an effect with the wanted power; None where more would not help."""

    def enough(repeats: int) -> bool:
        return power(simulate(spread, repeats, folds, units, tables, seed), effect, alpha) >= wanted

    if not can_test(MOST_REPEATS, folds, units):
        return None
    return next((repeats for repeats in _rising(-(-ENOUGH_RUNS // folds), MOST_REPEATS) if enough(repeats)), None)


def can_test(repeats: int, folds: int, units: int) -> bool:
    """Whether the mixed model has enough runs and units for any p."""
    return repeats * folds >= ENOUGH_RUNS and units * folds >= ENOUGH_UNITS


def _rising(least: int, most: int) -> Iterable[int]:
    """Numbers of repeats, in steps of a tenth."""
    repeats = least
    while repeats <= most:
        yield repeats
        repeats += max(1, repeats // 10)
