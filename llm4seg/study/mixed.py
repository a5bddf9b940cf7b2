"""A linear mixed model of paired differences: what would come of other seeds and other patients.

difference = effect + run + unit + rest, the last three random (Laird & Ware 1982), by restricted maximum likelihood. A
unit is a patient, or a case. statsmodels fits it; its own interval is a normal one, which is too short for the few runs
of a study, so Student's t takes its place, with Satterthwaite's degrees of freedom.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

ENOUGH_RUNS, ENOUGH_UNITS, MOST_CELLS = 3, 5, 4000  # of more cells, the fit would take hours


@dataclass(frozen=True)
class Mixed:
    """An effect with its standard error, degrees of freedom, and the variances that it comes from."""

    effect: float
    error: float
    df: float
    run: float
    unit: float
    rest: float

    def interval(self, confidence: float) -> tuple[float, float]:
        from scipy.stats import t

        half = self.error * float(t.ppf((1 + confidence) / 2, self.df))
        return self.effect - half, self.effect + half

    @property
    def p(self) -> float:
        """Two-sided, of no effect."""
        from scipy.stats import t

        return float(2 * t.sf(abs(self.effect) / self.error, self.df))


def fit_mixed(cells: pd.DataFrame) -> Mixed | None:
    """Fit a table of `run`, `unit` and `difference`, a row a pair; None where they are too few or all equal."""
    runs, units = cells["run"].nunique(), cells["unit"].nunique()
    scale = float(cells["difference"].std())
    if runs < ENOUGH_RUNS or units < ENOUGH_UNITS or len(cells) > MOST_CELLS or not scale > 0:
        return None
    from statsmodels.regression.mixed_linear_model import MixedLM

    with warnings.catch_warnings(action="ignore"):  # that a variance is zero, which is an answer
        model = MixedLM.from_formula(
            "scaled ~ 1",
            cells.assign(scaled=cells["difference"] / scale),
            groups=np.ones(len(cells)),
            re_formula="0",
            vc_formula={"run": "0 + C(run)", "unit": "0 + C(unit)"},
        )
        # not the default, by gradients, which gets lost where a variance is zero
        fitted = model.fit(reml=True, method="powell")
    run, unit = (float(fitted.vcomp[model.exog_vc.names.index(name)]) for name in ("run", "unit"))
    rest = float(fitted.scale)
    df = degrees_of_freedom(run / runs, unit / units, rest / len(cells), runs, units)
    effect, error = scale * float(fitted.fe_params.iloc[0]), scale * float(fitted.bse_fe.iloc[0])
    return Mixed(effect, error, df, *(scale**2 * variance for variance in (run, unit, rest)))


def degrees_of_freedom(run: float, unit: float, rest: float, runs: int, units: int) -> float:
    """Satterthwaite's, of the sum of three variances of a mean, each known from so many runs, units and pairs.

    In a crossed table that sum is (mean square of runs + of units - of the rest) / pairs.
    """
    squares = (run + rest) ** 2 / (runs - 1) + (unit + rest) ** 2 / (units - 1) + rest**2 / ((runs - 1) * (units - 1))
    return (run + unit + rest) ** 2 / squares if squares > 0 else math.inf
