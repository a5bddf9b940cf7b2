"""The cost estimate and the power analysis of a study, before it runs."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from llm4seg.config import Config
from llm4seg.config.schema import Spread
from llm4seg.data.prepared import Case, Prepared
from llm4seg.data.split import read_split
from llm4seg.evaluation.volumes import volume_name
from llm4seg.runtime.device import default_device
from llm4seg.study.arms import PlannedRun, fold_splits
from llm4seg.study.comparisons import VARIANCES
from llm4seg.study.looks import looks
from llm4seg.study.mixed_model import ENOUGH_RUNS, ENOUGH_UNITS
from llm4seg.study.pairs import unit_of, with_blocks
from llm4seg.study.power import MOST_REPEATS, can_test, detectable, draw, power_of_looks, repeats_needed, simulate
from llm4seg.study.results import Runs, case_table, compared, finished
from llm4seg.study.verdict import units
from llm4seg.training.run import LocalRun, Row, start_group_of_one
from llm4seg.training.trainer import fit


@dataclass(frozen=True)
class Design:
    """The design of a study, for its power; `units` are patients, blocks or cases, in one fold's test part."""

    spread: Spread
    observed: bool  # whether the spread is of finished runs, or assumed
    repeats: int
    folds: int
    units: int
    unit: str
    alpha: float  # of the first step of Holm's procedure, the strictest


def run_seconds(config: Config, runs: Runs) -> dict[str, float]:
    """The seconds of a run of each arm: the mean of its finished ones; without any, its epochs as timed here."""
    seconds: dict[str, list[float]] = {arm: [] for arm in config.study.chosen}
    for run, record in runs:
        if record is not None and finished(record):
            seconds[run.arm].append(record["seconds"])
    untimed = [arm for arm, values in seconds.items() if not values]
    timed = {arm: each * config.arm(arm).training.epochs for arm, each in epoch_seconds(config, untimed)}
    return {arm: float(np.mean(values)) if values else timed[arm] for arm, values in seconds.items()}


def cost_estimate(config: Config, runs: Runs, seconds: Mapping[str, float]) -> Iterator[str]:
    """Lines on the number of missing runs and the time of their training, from the seconds of a run by arm."""
    missing = [run.arm for run, record in runs if not finished(record)]
    yield f"{len(runs)} runs, of which {len(runs) - len(missing)} have finished; training, one run after another here:"
    total = 0.0
    for arm in dict.fromkeys(missing):
        epochs, count = config.arm(arm).training.epochs, missing.count(arm)
        total += seconds[arm] * count
        yield f"  {arm:16} {count:3} runs x {epochs} epochs x {seconds[arm] / epochs:6.2f} s"
    yield f"  {total / 3600:.1f} hours in all, and for each run the time that its workers' start and the measuring take"


def power_analysis(config: Config, runs: Runs) -> Iterator[str]:
    """Lines on the smallest difference that the study detects, and the repeats that `plan.effect` takes."""
    comparisons, section = compared(config, case_table(runs, config.study.per)), config.study.plan
    of = design(config, comparisons)
    kind = units(of.unit, config.study.per)
    smallest, needed = detectable_effect(config, of)
    source = "as finished runs have it" if of.observed else "assumed (study.plan.spread)"
    between = f"{of.spread.fold:.3g} between folds, " if of.folds > 1 else ""
    yield (
        f"paired differences vary, {source}, by a standard deviation of {between}{of.spread.run:.3g} between runs, "
        f"{of.spread.case:.3g} between {kind}, and {of.spread.rest:.3g} besides"
    )
    finds = (
        f"no difference, however large: the comparison needs {ENOUGH_RUNS} runs and {ENOUGH_UNITS} {kind}"
        if smallest is None
        else f"a difference of {smallest:.3g} with a power of {section.power:.0%} "
        f"(the first of {len(config.study.chosen) - 1} arms in Holm's correction)"
    )
    yield f"{of.repeats} x {of.folds} paired runs on {of.units} test {kind} find {finds}"
    more = "more folds or cases" if of.folds > 1 else "more cases"
    takes = f"{needed} repeats" if needed else f"more than {MOST_REPEATS} repeats: it needs {more}, not more seeds"
    yield f"a difference of {section.effect:g} takes {takes}"
    if smallest is not None and config.study.look_repeats:
        yield look_analysis(config, of, smallest)


def look_analysis(config: Config, of: Design, effect: float) -> str:
    """A line on the looks: their levels, and how often and how early they find an effect."""
    plan, ends = config.study.plan, looks(config.study)
    levels = [(look.repeats, look.level(of.alpha)) for look in ends]
    tables = simulate(of.spread, of.repeats, of.folds, of.units, plan.simulations, config.evaluation.seed)
    found, repeats = power_of_looks(tables, levels, effect)
    after = ", ".join(str(repeats) for repeats, _ in levels)
    below = ", ".join(f"{level:.2g}" for _, level in levels)
    return (
        f"looks after {after} repeats decide on an arm at p below {below}: they find a difference of {effect:.3g} with "
        f"a power of {found:.0%}, after {repeats:.1f} repeats on average"
    )


def design(config: Config, compared: pd.DataFrame) -> Design:
    """The design of a study, with the spread of finished runs on its own data where there are enough, else assumed."""
    section, data = config.study, Prepared(config.paths.prepared)
    cases, folds = _tested(config, data), max(1, len(section.folds))
    table = pd.DataFrame([case.plain() for case in cases])
    if section.per == "volume":
        table = table.assign(id=[volume_name(case) for case in cases], volume=None)
    blocks = with_blocks(table, config.split.block)
    unit = unit_of(blocks["group"], blocks["block"])
    count = max(1, blocks["id" if unit == "case" else unit].nunique() // folds)
    alpha = (1 - config.evaluation.confidence) / max(1, len(section.chosen) - 1)
    observed = observed_spread(compared, section.plan.spread)
    spread = observed or section.plan.spread
    return Design(spread, observed is not None, section.repeats, folds, count, unit, alpha)


def _tested(config: Config, data: Prepared) -> list[Case]:
    """The cases of the test part, or of all folds that are the test part in turn."""
    folded = fold_splits(config, data).values() if config.study.folds else [read_split(config.paths.split)]
    return [data.cases[name] for split in folded for name in split.test]


def observed_spread(compared: pd.DataFrame, assumed: Spread) -> Spread | None:
    """The root mean square of spreads in comparisons on the study's own data; None where there are none.

    For a single split, the spread between folds remains assumed.
    """
    if compared.empty:
        return None
    own = compared[compared["data"] == compared["data"].iloc[0]]
    if not len(known := own.dropna(subset=["sd_run", "sd_unit", "sd_rest"])):
        return None
    fold, run, unit, rest = (float(np.sqrt((known[f"sd_{name}"] ** 2).mean())) for name in VARIANCES)
    return Spread(fold=assumed.fold if np.isnan(fold) else fold, run=run, case=unit, rest=max(rest, 1e-9))


def detectable_effect(config: Config, of: Design) -> tuple[float | None, int | None]:
    """The smallest difference that is detected with the wanted power, and the repeats that `plan.effect` takes.

    None where there is none: too few runs or units for any test; more than MOST_REPEATS repeats.
    """
    plan, seed = config.study.plan, config.evaluation.seed
    needed = repeats_needed(of.spread, of.folds, of.units, plan.effect, plan.power, of.alpha, plan.simulations, seed)
    if not can_test(of.repeats, of.folds, of.units):
        return None, needed
    drawn = draw(of.spread, of.repeats, of.folds, of.units, plan.simulations, seed)
    return detectable(drawn, plan.power, of.alpha), needed


class _Timed(LocalRun):
    """A local run that records the end of each epoch."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        super().__init__(folder, device)
        self.ends: list[float] = []

    def report(self, row: Row | None, save: Callable[[Path], None]) -> None:
        super().report(row, save)
        self.ends.append(time.monotonic())


def epoch_seconds(config: Config, arms: Iterable[str]) -> Iterator[tuple[str, float]]:
    """The seconds of each arm's epoch in this process: the second of two, since the first one warms up."""
    device = default_device(config.cluster)
    start_group_of_one(device)
    for arm in arms:
        with tempfile.TemporaryDirectory() as folder:
            run = _Timed(Path(folder), device)
            fit(PlannedRun(arm, 0, None).config(config).override({"training.epochs": 2}), run)
        yield arm, run.ends[1] - run.ends[0]
