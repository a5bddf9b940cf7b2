"""Variance components of a table of differences, by restricted maximum likelihood (REML).

difference = mean of its fold + run + unit + rest. Packages build a matrix of all pairs by all pairs, which a few
thousand pairs make too large. Woodbury's identity reduces it to sums over units and one matrix of runs by runs.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
LARGEST = 20.0  # logarithm of the largest ratio of a variance to the rest's in the search


@dataclass(frozen=True)
class Fit:
    """The folds' means with their covariance, and the variances."""

    means: Array
    covariance: Array
    run: float
    unit: float
    rest: float


class _Sums:
    """The sums of a table for its likelihood: products of its columns (runs, folds, difference), sums over units."""

    def __init__(self, values: Array, folds: Codes, runs: Codes, units: Codes) -> None:
        self.folds, self.runs = int(folds.max()) + 1, int(runs.max()) + 1
        self.free = max(1, len(values) - self.folds)
        columns = np.column_stack([np.eye(self.runs)[runs], np.eye(self.folds)[folds], values])
        self.products = columns.T @ columns
        self.sizes = np.bincount(units).astype(float)
        self.of_units = np.zeros((len(self.sizes), columns.shape[1]))
        np.add.at(self.of_units, units, columns)


def reml(values: Array, folds: Codes, runs: Codes, units: Codes) -> Fit:
    """Fit a table, a row per pair; folds, runs and units are numbered from 0.

    Components that the table cannot separate go where repeats would not help: a fold's only run to its mean, and where
    each unit has a single pair, the rest to the unit.
    """
    sums = _Sums(values, folds, runs, units)
    once = len(sums.sizes) == len(values)
    free = np.array([sums.runs > sums.folds, len(sums.sizes) > sums.folds and not once])
    run_ratio, unit_ratio = _best(sums, free)
    _, means, covariance, rest = _likelihood(sums, run_ratio, unit_ratio)
    run, unit = run_ratio * rest, unit_ratio * rest
    return Fit(means, covariance, run, rest if once else unit, 0.0 if once else rest)


def _best(sums: _Sums, free: NDArray[np.bool_]) -> tuple[float, float]:
    """The most likely ratios of the runs' and units' variance to the rest's; 0 where not free."""
    from scipy.optimize import minimize

    def ratios(logs: Array) -> Array:
        every = np.zeros(2)
        every[free] = np.expm1(logs)
        return every

    if not free.any():
        return 0.0, 0.0
    # without gradients, which get lost where a variance is zero
    found = minimize(
        lambda logs: _likelihood(sums, *ratios(logs))[0],
        np.full(free.sum(), 0.5),
        method="Powell",
        bounds=[(0, LARGEST)] * int(free.sum()),
        options={"xtol": 1e-5, "ftol": 1e-9},
    )
    run, unit = ratios(found.x)
    return float(run), float(unit)


def _likelihood(sums: _Sums, run_ratio: float, unit_ratio: float) -> tuple[float, Array, Array, float]:
    """Minus twice the restricted likelihood's logarithm, the folds' means, their covariance and the rest's variance."""
    at, shrunk = sums.runs, unit_ratio / (1 + unit_ratio * sums.sizes)
    inner = sums.products - (sums.of_units.T * shrunk) @ sums.of_units
    of_runs, across, outer = inner[:at, :at], inner[:at, at:], inner[at:, at:]
    core = np.eye(at) + run_ratio * of_runs
    outer = outer - run_ratio * across.T @ np.linalg.solve(core, across)
    information, score = outer[:-1, :-1], outer[:-1, -1]
    means: Array = np.linalg.solve(information, score).astype(np.float64)
    rest = max(float(outer[-1, -1] - score @ means) / sums.free, np.finfo(float).tiny)
    determinants = np.linalg.slogdet(core)[1] + np.linalg.slogdet(information)[1]
    logs = np.log1p(unit_ratio * sums.sizes).sum() + determinants
    covariance: Array = (rest * np.linalg.inv(information)).astype(np.float64)
    return sums.free * math.log(rest) + float(logs), means, covariance, rest
