"""Stratified assignment of units (patients, blocks of slices) to parts of given sizes."""

from collections.abc import Sequence

import numpy as np


def stratify(amounts: np.ndarray, shares: Sequence[float], random: np.random.Generator) -> np.ndarray:
    """The part (index into `shares`) of each unit, (units,).

    `amounts` (units, kinds): how much of each kind (cases, pixels of a class) a unit holds; `shares` add up to 1.
    Large units come first, those within a factor of two of each other in random order; each goes where the squared
    distance to the shares, relative to their size, grows least, so the small ones even the parts out. No part stays
    empty as long as there are as many units as parts.
    """
    assert len(amounts) >= len(shares)
    wanted = np.asarray(shares, dtype=float)
    totals = amounts.sum(axis=0)
    fractions = amounts[:, totals > 0] / totals[totals > 0]
    filled = np.zeros((len(wanted), fractions.shape[1]))
    part_of = np.full(len(amounts), -1)
    for placed, unit in enumerate(_large_first(fractions, random)):
        added = fractions[unit]
        growth = (2 * (filled - wanted[:, None]) * added + added**2).sum(axis=1) / wanted
        empty = ~filled.any(axis=1)
        if empty.sum() == len(amounts) - placed:
            growth[~empty] = np.inf
        part_of[unit] = growth.argmin()
        filled[part_of[unit]] += added
    return part_of


def _large_first(fractions: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Unit numbers by falling size, where size is the largest fraction, rounded down to a power of two."""
    order = random.permutation(len(fractions))
    return order[np.argsort(-np.floor(np.log2(fractions[order].max(axis=1))), kind="stable")]
