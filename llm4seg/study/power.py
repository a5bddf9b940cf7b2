"""The power of a study by simulation: differences of the mixed model, tested by its closed form.

`simulate` draws whole tables, `draw` only what their test depends on, by its distribution: the same at a cost that does
not grow with the table, so that many designs can be tried.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from llm4seg.config.schema import Spread
from llm4seg.study.mixed_model import ENOUGH_RUNS, ENOUGH_UNITS

Array = NDArray[np.float64]
Tested = tuple[Array, Array, Array]  # mean, standard error and degrees of freedom of each simulated study
MOST_REPEATS = 64  # the most that `repeats_needed` tries
MOST_UNITS = 10_000  # the most that `units_needed` tries, of a fold


def simulate(spread: Spread, repeats: int, folds: int, units: int, tables: int, seed: int) -> Array:
    """Tables of differences without an effect, (tables, folds, repeats, units of a fold)."""
    random = np.random.default_rng(seed)
    shape = (tables, folds, repeats, units)
    of_folds = random.normal(0, spread.fold if folds > 1 else 0, (tables, folds, 1, 1))
    runs = random.normal(0, spread.run, (tables, folds, repeats, 1))
    cases = random.normal(0, spread.case, (tables, folds, 1, units))
    return np.asarray(of_folds + runs + cases + random.normal(0, spread.rest, shape))


def test(tables: Array) -> Tested:
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
    dfs = _degrees(repeats, units)
    run = (of_run**2).sum(axis=(1, 2)) * units / dfs[0]  # mean squares
    unit = (of_unit**2).sum(axis=(1, 2)) * repeats / dfs[1]
    rest = ((table - of_run - of_unit) ** 2).sum(axis=(1, 2)) / dfs[2]
    return mean, *_crossed(run, unit, rest, repeats, units)


def draw(spread: Spread, repeats: int, folds: int, units: int, studies: int, seed: int) -> Tested:
    """What `test` gives of as many tables of `simulate`, by its distribution.

    Of normal data, the mean is independent of the mean squares, which are those expected times chi-square over its
    degrees of freedom (Searle, Casella & McCulloch, Variance Components, 1992, chapter 4).
    """
    random = np.random.default_rng(seed)
    variance = spread.run**2 / repeats + spread.case**2 / units + spread.rest**2 / (repeats * units)
    if folds > 1:
        variance += spread.fold**2
        error = (variance / folds * random.chisquare(folds - 1, studies) / (folds - 1)) ** 0.5
        mean = random.normal(0, (variance / folds) ** 0.5, studies)
        return mean, error, np.full(studies, folds - 1.0)
    expected = (
        units * spread.run**2 + spread.rest**2,
        repeats * spread.case**2 + spread.rest**2,
        spread.rest**2,
    )
    mean = random.normal(0, variance**0.5, studies)
    run, unit, rest = (
        square * random.chisquare(df, studies) / df
        for square, df in zip(expected, _degrees(repeats, units), strict=True)
    )
    return mean, *_crossed(run, unit, rest, repeats, units)


def _degrees(repeats: int, units: int) -> tuple[int, int, int]:
    """Degrees of freedom of the mean squares of runs, units and the rest."""
    return repeats - 1, units - 1, (repeats - 1) * (units - 1)


def _crossed(run: Array, unit: Array, rest: Array, repeats: int, units: int) -> tuple[Array, Array]:
    """Standard error of the mean of a table of runs by units, and its degrees of freedom, from the mean squares."""
    dfs = _degrees(repeats, units)
    square = np.maximum(run + unit - rest, np.maximum(run, unit))  # an estimated variance below zero is one of zero
    df = square**2 / (run**2 / dfs[0] + unit**2 / dfs[1] + rest**2 / dfs[2])
    return (square / (repeats * units)) ** 0.5, df


def power(tested: Tested, effect: float, alpha: float) -> float:
    """The power: the share of studies in which an effect of this size is significant."""
    from scipy.stats import t

    mean, error, df = tested
    return float(np.mean(np.abs(mean + effect) > error * t.ppf(1 - alpha / 2, df)))


def power_of_looks(tables: Array, looks: Iterable[tuple[int, float]], effect: float) -> tuple[float, float]:
    """The power with looks, each after some of the tables' repeats and of its own level, the last after all; and the
    mean number of repeats after which a comparison is decided or all are made.

    Degrees of freedom as `compare` has them: of one split, the fewest before the last look.
    """
    from scipy.stats import t

    studies, folds, planned, units = tables.shape
    crossed, repeats_made = np.zeros(studies, dtype=bool), np.full(studies, float(planned))
    for repeats, level in looks:
        mean, error, df = test(tables[:, :, :repeats])
        if folds == 1 and repeats < planned:
            df = np.minimum(df, min(repeats, units) - 1)
        now = np.abs(mean + effect) > error * t.ppf(1 - level / 2, df)
        repeats_made[now & ~crossed] = repeats
        crossed |= now
    return float(crossed.mean()), float(repeats_made.mean())


def detectable(tested: Tested, wanted: float, alpha: float) -> float:
    """The smallest effect that is detected with the wanted power."""
    low, high = 0.0, float(tested[0].std())
    while power(tested, high, alpha) < wanted:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if power(tested, middle, alpha) < wanted else (low, middle)
    return high


def repeats_needed(
    spread: Spread, folds: int, units: int, effect: float, wanted: float, alpha: float, studies: int, seed: int
) -> int | None:
    """The fewest repeats that detect an effect with the wanted power; None where more would not help."""

    def enough(repeats: int) -> bool:
        return power(draw(spread, repeats, folds, units, studies, seed), effect, alpha) >= wanted

    if not can_test(MOST_REPEATS, folds, units):
        return None
    return _first(enough, -(-ENOUGH_RUNS // folds), MOST_REPEATS)


def units_needed(
    spread: Spread, repeats: int, folds: int, effect: float, wanted: float, alpha: float, studies: int, seed: int
) -> int | None:
    """The fewest units of a fold that detect an effect with the wanted power; None where more would not help."""

    def enough(units: int) -> bool:
        return power(draw(spread, repeats, folds, units, studies, seed), effect, alpha) >= wanted

    if not can_test(repeats, folds, MOST_UNITS):
        return None
    return _first(enough, max(2, -(-ENOUGH_UNITS // folds)), MOST_UNITS)


def can_test(repeats: int, folds: int, units: int) -> bool:
    """Whether the mixed model has enough runs and units for any p."""
    return repeats * folds >= ENOUGH_RUNS and units * folds >= ENOUGH_UNITS


def _first(enough: Callable[[int], bool], least: int, most: int) -> int | None:
    """The first number that is enough, in steps of a tenth; None where none is."""
    return next((number for number in _rising(least, most) if enough(number)), None)


def _rising(least: int, most: int) -> Iterable[int]:
    """Numbers from `least` to `most`, in steps of a tenth."""
    number = least
    while number <= most:
        yield number
        number += max(1, number // 10)
