"""Group-sequential boundaries by an error-spending function: looks at a study while it runs, without voiding its p.

Two-sided tests at information times t_1 < t_2 < ... up to 1. By time t, the tests have spent 4 - 4 Phi(z / sqrt(t)) of
alpha, z being the normal quantile of 1 - alpha / 4: the function of O'Brien-Fleming type of Lan & DeMets (Biometrika
70, 1983), half of alpha on each side. Boundaries are found by the recursion of Armitage, McPherson & Rowe (Journal of
the Royal Statistical Society A 132, 1969) for a Brownian motion at these times.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NODES = 128  # of the numeric integral between two boundaries
WIDEST = 10.0  # standard deviations of the integral's limits, beyond which there is nothing
FARTHEST = 37.0  # standard deviations, beyond which a normal tail is zero in float64
SMALLEST_P = 1e-12  # that is adjusted; smaller ones count as this


def spent(time: float, alpha: float) -> float:
    """The share of alpha that tests up to an information time may have spent, both sides together."""
    from scipy.stats import norm

    return float(4 * norm.sf(norm.isf(alpha / 4) / math.sqrt(time)))


def boundaries(times: Sequence[float], alpha: float) -> Array:
    """The |z| at each look from which on a test rejects; they depend on no later look."""
    nodes, weights = _quadrature()
    found, last, before = [], 0.0, 0.0
    places, masses = np.zeros(1), np.ones(1)  # of the Brownian motion where no look has rejected
    for time in times:
        step, total = math.sqrt(time - last), spent(time, alpha)
        limit = _boundary(max(total - before, 0.0), places, masses, time, step)
        found.append(limit)
        edge = min(limit, WIDEST) * math.sqrt(time)
        density = np.exp(-(((edge * nodes[:, None] - places) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        places, masses = edge * nodes, edge * weights * (density @ masses)
        last, before = time, total
    return np.array(found)


@cache
def _quadrature() -> tuple[Array, Array]:
    """Nodes and weights of Gauss and Legendre on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights


def _boundary(increment: float, places: Array, masses: Array, time: float, step: float) -> float:
    """The |z| beyond which the motion lies at `time`, `step` standard deviations on, with this probability."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def excess(z: float) -> float:
        edge = z * math.sqrt(time)
        return float(masses @ (ndtr((places - edge) / step) + ndtr((-places - edge) / step))) - increment

    if excess(0.0) <= 0:  # all that is left is spent
        return 0.0
    return FARTHEST if excess(FARTHEST) >= 0 else float(brentq(excess, 0.0, FARTHEST, xtol=1e-12))


def nominal_level(times: Sequence[float], alpha: float) -> float:
    """The two-sided level at the last of the looks: a p below it rejects there."""
    from scipy.stats import norm

    return float(2 * norm.sf(boundaries(times, alpha)[-1]))


def adjusted_p(p: float, times: Sequence[float]) -> float:
    """The smallest alpha whose boundaries reject a p at the last of the looks (Liu & Anderson, Stat. Med. 27, 2008).

    Below any alpha exactly where p is below its `nominal_level`, so that Holm's procedure over adjusted p is the
    group-sequential one (Maurer & Bretz, Stat. Biopharm. Res. 5, 2013).
    """
    from scipy.optimize import brentq

    p = max(p, SMALLEST_P)

    def excess(log_alpha: float) -> float:
        return math.log(nominal_level(times, math.exp(log_alpha)) / p)

    if not p < 1 or excess(0.0) <= 0:
        return 1.0
    if excess(math.log(p)) >= 0:  # a single look: nothing to adjust
        return p
    return math.exp(float(brentq(excess, math.log(p), 0.0, xtol=1e-10)))
