"""Looks at a study while it runs: after which repeats, what they adjust, and whether it stops.

The time of a look is its share of all repeats. Where cases differ more than runs, the first repeats have more of the
information than that; the looks' estimates are then more alike, and the boundaries keep their level with a margin.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from llm4seg.config.schema import Study
from llm4seg.study.arms import PlannedRun
from llm4seg.study.sequential import adjusted_p, nominal_level


@dataclass(frozen=True)
class Look:
    """A look after `repeats` of each arm; `times`: shares of all repeats at this one and those before, of `looks`."""

    repeats: int
    times: tuple[float, ...]
    looks: int

    @property
    def number(self) -> int:
        """From 1 on."""
        return len(self.times)

    @property
    def last(self) -> bool:
        return self.number == self.looks

    def level(self, alpha: float) -> float:
        """The level at this look of a test whose level over all looks is `alpha`."""
        return nominal_level(self.times, alpha)

    def p(self, p: float) -> float:
        """p adjusted for the looks: below any alpha exactly where it is below this look's level."""
        return adjusted_p(p, self.times)


@dataclass(frozen=True)
class Reached:
    """The latest look of a study with its comparisons, and whether the study stops there before its last look."""

    look: Look
    comparisons: pd.DataFrame
    stops: bool


def looks(study: Study) -> list[Look]:
    """All looks in order; none without `study.looks`."""
    ends = study.look_repeats
    times = tuple(end / study.repeats for end in ends)
    return [Look(end, times[:number], len(ends)) for number, end in enumerate(ends, start=1)]


def latest(
    study: Study, waiting: list[PlannedRun], confidence: float, compare: Callable[[Look], pd.DataFrame]
) -> Reached | None:
    """The first look that stops the study, else the last one with no run `waiting`; None where there is none yet."""
    found = None
    for look in looks(study):
        if any(run.repeat < look.repeats for run in waiting):
            break
        comparisons = compare(look)
        stops = not look.last and decided(study, comparisons, confidence)
        found = Reached(look, comparisons, stops)
        if stops:
            break
    return found


def decided(study: Study, comparisons: pd.DataFrame, confidence: float) -> bool:
    """Whether every arm differs from the first reference on the study's own data, by Holm's procedure at this look."""
    if comparisons.empty:
        return False
    reference = study.chosen_references[0]
    own = comparisons[comparisons["data"] == comparisons["data"].iloc[0]]
    primary = own[own["reference"] == reference]
    every = {*study.chosen} - {reference}
    return {*primary["arm"]} == every and bool((primary["p_holm"] < 1 - confidence).all())


def about_looks(study: Study, reached: Reached | None) -> str:
    """A sentence on the looks of a study that has some."""
    ends = looks(study)
    if reached is None:
        return f"No look has been reached: the first of {len(ends)} is after {ends[0].repeats} repeats of all arms."
    look = reached.look
    where = f"look {look.number} of {look.looks}, after {look.repeats} of {study.repeats} repeats"
    allowing = "Intervals and p (but Wilcoxon's and the bootstrap's) allow for the looks"
    if reached.stops:
        reference = study.chosen_references[0]
        return f"The study stopped at {where}: every arm can be told from {reference}. {allowing}."
    going = "" if look.last else "; it goes on"
    return f"This is {where}{going}. {allowing}."
