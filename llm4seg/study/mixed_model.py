"""A linear mixed model of paired differences, for inference to other seeds and other patients.

difference = effect + fold + run + unit + rest, all but the first random (Laird & Ware 1982), by restricted maximum
likelihood. A unit is a patient, a block of slices, or a case. Of one split, intervals are Student's t with
Satterthwaite's degrees of freedom. Of several folds, they are Student's t over the folds' means: runs of one fold share
their training and test cases, so that more of them have no information on other folds.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import pandas as pd

from llm4seg.config.schema import ENOUGH_RUNS
from llm4seg.study.reml import Fit, reml

ENOUGH_UNITS = 5
TINY = 1e-24  # a variance below is of rounding
Reason = Literal["runs", "units", "equal"]  # too few runs, too few units, all differences equal


@dataclass(frozen=True)
class Mixed:
    """An effect with its standard error, degrees of freedom, and variance components.

    `fold` is None for a single split, which has no information on others.
    """

    effect: float
    error: float
    df: float
    fold: float | None
    run: float
    unit: float
    rest: float

    @property
    def spread(self) -> float:
        """The standard deviation of one unit's difference in one run."""
        return ((self.fold or 0.0) + self.run + self.unit + self.rest) ** 0.5

    def with_fewest_degrees(self, runs: int, units: int) -> Self:
        """The same with no more degrees of freedom than either of both has: for the small levels of early looks, which
        Satterthwaite's, an estimate itself, exceed with three or four runs.
        """
        return replace(self, df=min(self.df, runs - 1, units - 1))

    def interval(self, confidence: float) -> tuple[float, float]:
        from scipy.stats import t

        half = self.error * float(t.ppf((1 + confidence) / 2, self.df))
        return self.effect - half, self.effect + half

    @property
    def p(self) -> float:
        """Two-sided p of no effect."""
        from scipy.stats import t

        return float(2 * t.sf(abs(self.effect) / self.error, self.df))


def fit_mixed(cells: pd.DataFrame) -> Mixed | Reason:
    """Fit a table of `fold`, `run`, `unit` and `difference`, a row per pair; or return why it cannot be fitted."""
    runs, units = cells["run"].nunique(), cells["unit"].nunique()
    scale = float(cells["difference"].std())
    if runs < ENOUGH_RUNS:
        return "runs"
    if units < ENOUGH_UNITS:
        return "units"
    if not scale**2 > TINY:
        return "equal"
    middle = float(cells["difference"].mean())
    values = ((cells["difference"] - middle) / scale).to_numpy(dtype=float)
    folds, *others = (pd.factorize(cells[name])[0] for name in ("fold", "run", "unit"))
    estimate = _of_one_split if folds.max() == 0 else _of_folds
    return _scaled(estimate(reml(values, folds, *others), runs, units, len(cells)), middle, scale)


def _scaled(fitted: Mixed, middle: float, scale: float) -> Mixed:
    """The fit in the unit of the differences."""
    variances = (fitted.run, fitted.unit, fitted.rest)
    fold = None if fitted.fold is None else scale**2 * fitted.fold
    return Mixed(
        middle + scale * fitted.effect,
        scale * fitted.error,
        fitted.df,
        fold,
        *(scale**2 * variance for variance in variances),
    )


def _of_one_split(fit: Fit, runs: int, units: int, pairs: int) -> Mixed:
    df = degrees_of_freedom(fit.run / runs, fit.unit / units, fit.rest / pairs, runs, units)
    return Mixed(float(fit.means[0]), float(fit.covariance[0, 0]) ** 0.5, df, None, fit.run, fit.unit, fit.rest)


def _of_folds(fit: Fit, runs: int, units: int, pairs: int) -> Mixed:
    """Folds have equal weights. Their variance is that of their means less the one of all other components."""
    folds, variance = len(fit.means), float(fit.means.var(ddof=1))
    fold = max(0.0, variance - float(np.diag(fit.covariance).mean()))
    error = max(variance / folds, TINY) ** 0.5
    return Mixed(float(fit.means.mean()), error, folds - 1.0, fold, fit.run, fit.unit, fit.rest)


def degrees_of_freedom(run: float, unit: float, rest: float, runs: int, units: int) -> float:
    """Satterthwaite's, of the sum of three variances of a mean, each estimated from `runs`, `units` and their pairs.

    In a crossed table that sum is (mean square of runs + of units - of the rest) / pairs.
    """
    squares = (run + rest) ** 2 / (runs - 1) + (unit + rest) ** 2 / (units - 1) + rest**2 / ((runs - 1) * (units - 1))
    return (run + unit + rest) ** 2 / squares if squares > 0 else math.inf
