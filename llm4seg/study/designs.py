"""Designs that a study could have: what each costs and finds, and the cheapest that finds what is wanted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from rich import box
from rich.table import Table

from llm4seg.config import Config
from llm4seg.config.schema import Spread
from llm4seg.study.plan import Design, design
from llm4seg.study.power import MOST_REPEATS, MOST_UNITS, can_test, detectable, draw, repeats_needed, units_needed
from llm4seg.study.verdict import METRICS, units
from llm4seg.utils.errors import InputError

NO_MORE = 1.1  # repeats are no longer added where all of them together would gain less than a tenth
FEWEST_FOLDS = 3  # of two, Student's t has one degree of freedom


@dataclass(frozen=True)
class Candidate:
    """A design with its cost, and the smallest difference that it finds (None: it has too few runs or units)."""

    how: str
    arms: int
    repeats: int
    folds: int
    units: int  # tested in all folds together
    hours: float  # of training, one run after another
    finds: float | None
    more_data: bool = False  # whether it takes cases that are not there

    @property
    def runs(self) -> int:
        return self.arms * self.repeats * self.folds

    def __str__(self) -> str:
        return f"{self.arms} arms, {self.how}"


def candidates(config: Config, compared: pd.DataFrame, seconds: Mapping[str, float]) -> list[Candidate]:
    """The planned design; then for all arms, and for two, more repeats, folds, and more test data.

    `compared`: comparisons of finished runs; `seconds` of a run, by arm. Of each kind the cheapest design that finds
    `study.plan.effect` with `study.plan.power`; where none does, the one beyond which repeats gain little.
    """
    planned, found = design(config, compared), list[Candidate]()
    for arms in dict.fromkeys((len(seconds), 2)):
        of = replace(planned, alpha=(1 - config.evaluation.confidence) / (arms - 1))
        found.append(_candidate(config, "as it is", of, seconds, arms))
        for kind in _foldings(config, compared, of):
            best = [_cheapest(config, how, folded, seconds, arms) for how, folded in kind.items()]
            found.append(cheapest(best, config.study.plan.effect) or best[-1])
        if (more := _more_units(config, of)) is not None:
            found.append(_candidate(config, "more test data", more, seconds, arms, more_data=True))
    return found


def cheapest(found: Sequence[Candidate], effect: float) -> Candidate | None:
    """The cheapest design on the data that are there which finds the effect."""
    meeting = [one for one in found if not one.more_data and one.finds is not None and one.finds <= effect]
    return min(meeting, key=lambda one: one.hours, default=None)


def proposal(config: Config, of: Design, found: Sequence[Candidate]) -> Table:
    """The designs as a table, the cheapest that finds the effect marked by an arrow."""
    kind, best = units(of.unit, config.study.per), cheapest(found, config.study.plan.effect)
    table = Table(title=f"Designs, and what they find with a power of {config.study.plan.power:.0%}", box=box.SIMPLE)
    for heading in ("", "design", "arms", "repeats", "folds", f"test {kind}", "runs", "hours", "finds"):
        table.add_column(heading, justify="left" if heading in ("", "design") else "right")
    for one in found:
        finds = "nothing" if one.finds is None else f"{one.finds:.3g}"
        numbers = (one.arms, one.repeats, one.folds, one.units, one.runs)
        table.add_row(
            "->" if one is best else "", one.how, *(str(number) for number in numbers), f"{one.hours:.1f}", finds
        )
    return table


def conclusion(config: Config, of: Design, found: Sequence[Candidate]) -> Iterator[str]:
    """Lines below the table: the cheapest design, or by how much all fall short; and what the table cannot say."""
    effect, best = config.study.plan.effect, cheapest(found, config.study.plan.effect)
    known = {one: one.finds for one in found if not one.more_data and one.finds is not None}
    if best is not None:
        yield f"-> the cheapest that finds {effect:g}: {best}, {best.runs} runs in {best.hours:.1f} hours"
    elif known:
        nearest = min(known, key=lambda one: known[one])
        yield (
            f"none on these data finds {effect:g}: the nearest ({nearest}) finds {known[nearest]:.3g}, "
            f"{known[nearest] / effect:.1f} times as much"
        )
    else:
        yield f"none on these data finds {effect:g}, or any other difference: too few runs or cases for a test"
    source = "as in finished runs" if of.observed else "assumed (study.plan.spread)"
    yield (
        f"spread: {source}, in every row; hours: of training, one run after another; two arms: study.only; folds: "
        "study.folds of split.folds"
    )
    yield (
        "not in the table, since it is not known whether differences vary as much: images of half the side (a "
        "convolution costs a quarter) and fewer epochs from a trained CNN (training.init_from; docs/study.md). Three "
        "repeats of either tell"
    )


def sensitivity(compared_by: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """A line on which metric tells the arms apart best: |difference| / standard error of finished comparisons."""
    means = {}
    for metric, compared in compared_by.items():
        if compared.empty:
            continue
        own = compared[compared["data"] == compared["data"].iloc[0]]
        ratios = (own["difference"].abs() / standard_error(own)).dropna()
        if len(ratios):
            means[metric] = float(ratios.mean())
    if len(means) > 1:
        shown = ", ".join(f"{METRICS[metric]} {mean:.2f}" for metric, mean in means.items())
        yield (
            f"mean |difference| / standard error in finished runs, by study.metric: {shown} (0.8 is what no difference "
            "at all gives; to choose the metric by the p that it gives would void it)"
        )


def standard_error(compared: pd.DataFrame) -> pd.Series:
    """Standard error of each difference, from the variances of its mixed model; NaN where there is none."""
    count = {"run": compared["runs"], "unit": compared["units"], "rest": compared["runs"] * compared["units"]}
    count["rest"] = count["rest"] / compared["folds"]  # a unit is tested in one fold
    variance = sum(compared[f"sd_{name}"] ** 2 / number for name, number in count.items())
    fold = compared["sd_fold"].fillna(0).astype(float) ** 2 / compared["folds"]
    return pd.Series((variance + fold) ** 0.5, dtype=float)


def _foldings(config: Config, compared: pd.DataFrame, of: Design) -> Iterator[dict[str, Design]]:
    """Kinds of designs by their test parts: the split as it is, some or all of its folds, and twice as many folds."""
    if not config.study.folds:
        yield {"more repeats": of}
    folds = config.split.folds
    for count in (folds, 2 * folds):
        try:
            whole = design(config.override({"split.folds": count, "study.folds": [*range(count)]}), compared)
        except InputError:  # there are no such folds, by the split's rule or for too few patients
            continue
        whole = replace(whole, spread=of.spread, observed=of.observed, alpha=of.alpha)
        some = range(FEWEST_FOLDS, count + 1)
        yield {f"{fewer} of {count} folds": replace(whole, folds=fewer) for fewer in some}


def _cheapest(config: Config, how: str, of: Design, seconds: Mapping[str, float], arms: int) -> Candidate:
    """The design with the fewest repeats that find the effect, else with those beyond which more gain little."""
    plan, seed = config.study.plan, config.evaluation.seed
    known = of.spread, of.folds, of.units, plan.effect, plan.power, of.alpha, plan.simulations, seed
    repeats = repeats_needed(*known) or _enough_repeats(config, of)
    return _candidate(config, how, replace(of, repeats=repeats), seconds, arms)


def _enough_repeats(config: Config, of: Design) -> int:
    """The fewest repeats, doubled from 1 on, that find nearly what the most repeats find."""
    least = finds(config, replace(of, repeats=MOST_REPEATS))
    repeats = 1
    while least is not None and repeats < MOST_REPEATS:
        smallest = finds(config, replace(of, repeats=repeats))
        if smallest is not None and smallest <= NO_MORE * least:
            break
        repeats *= 2
    return repeats


def _more_units(config: Config, of: Design) -> Design | None:
    """The design with as many repeats and units as the effect needs; None where the units at hand are enough, or no
    number is. Few repeats would need many more units: it has half more than the fewest.
    """
    plan, seed = config.study.plan, config.evaluation.seed
    known = plan.effect, plan.power, of.alpha, plan.simulations, seed
    fewest = repeats_needed(of.spread, of.folds, MOST_UNITS, *known)
    if fewest is None:
        return None
    repeats = max(of.repeats, fewest + (fewest + 1) // 2)
    needed = units_needed(of.spread, repeats, of.folds, *known)
    return None if needed is None or needed <= of.units else replace(of, repeats=repeats, units=needed)


def finds(config: Config, of: Design) -> float | None:
    """The smallest difference that a design finds with the wanted power; None where it cannot test any."""
    if not can_test(of.repeats, of.folds, of.units):
        return None
    plan = config.study.plan
    spread: Spread = of.spread
    drawn = draw(spread, of.repeats, of.folds, of.units, plan.simulations, config.evaluation.seed)
    return detectable(drawn, plan.power, of.alpha)


def _candidate(
    config: Config, how: str, of: Design, seconds: Mapping[str, float], arms: int, more_data: bool = False
) -> Candidate:
    """The design with its cost: of all arms, or of the first reference and the slowest other arm."""
    total = sum(seconds.values())
    if arms < len(seconds):
        reference = config.study.chosen_references[0]
        total = seconds[reference] + max(value for name, value in seconds.items() if name != reference)
    hours = total * of.repeats * of.folds / 3600
    return Candidate(how, arms, of.repeats, of.folds, of.units * of.folds, hours, finds(config, of), more_data)
