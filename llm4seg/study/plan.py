"""What a study costs and what it can find, before it runs."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.device import device_here
from llm4seg.run import LocalRun, Row, group_of_one
from llm4seg.sections import Spread
from llm4seg.statistics import ENOUGH_GROUPS
from llm4seg.study.arms import Planned
from llm4seg.study.power import MOST_REPEATS, detectable, repeats_needed, simulate
from llm4seg.study.results import Runs, case_table, compared, finished
from llm4seg.train import fit


@dataclass(frozen=True)
class Design:
    """What decides how much a study can find; `units` are patients or cases, in one fold's test part."""

    spread: Spread
    repeats: int
    folds: int
    units: int
    unit: str
    alpha: float  # of the first step of Holm's procedure, the strictest


def cost(config: Config, runs: Runs) -> Iterator[str]:
    """How many runs are to do, and how long they train."""
    missing = [run.arm for run, record in runs if not finished(record)]
    yield f"{len(runs)} runs, of which {len(runs) - len(missing)} have finished; training, one run after another here:"
    total = 0.0
    for arm, seconds in epoch_seconds(config, dict.fromkeys(missing)):
        epochs, count = config.arm(arm).training.epochs, missing.count(arm)
        total += seconds * epochs * count
        yield f"  {arm:16} {count:3} runs x {epochs} epochs x {seconds:6.2f} s"
    yield f"  {total / 3600:.1f} hours in all, and for each run the time that its workers' start and the measuring take"


def power(config: Config, runs: Runs) -> Iterator[str]:
    """What the study can find."""
    findings, section = compared(config, case_table(runs)), config.study.plan
    of = design(config, findings)
    smallest, needed = found_by(config, of)
    source = "assumed (study.plan.spread)" if observed_spread(findings) is None else "as finished runs have it"
    yield (
        f"paired differences vary, {source}, by a standard deviation of {of.spread.run:.3g} between runs, "
        f"{of.spread.case:.3g} between {of.unit}s, and {of.spread.rest:.3g} besides"
    )
    yield (
        f"{of.repeats} x {of.folds} paired runs on {of.units} test {of.unit}s find a difference of {smallest:.3g} "
        f"with a power of {section.power:.0%} (the first of {len(config.study.arms) - 1} arms in Holm's correction)"
    )
    takes = f"{needed} repeats" if needed else f"more than {MOST_REPEATS} repeats: it needs more cases, not more seeds"
    yield f"a difference of {section.effect:g} takes {takes}"


def design(config: Config, compared: pd.DataFrame) -> Design:
    """The config's, with the spread that finished runs have, where there are enough, or the assumed one."""
    section, data = config.study, Prepared(config.paths.prepared)
    test = tuple(data.cases) if section.folds else read_split(config.paths.split).test
    groups = {data.cases[case].group for case in test}
    unit = "patient" if len(groups) >= ENOUGH_GROUPS else "case"
    folds = max(1, len(section.folds))
    parts = config.split.folds if section.folds else 1
    units = max(2, (len(groups) if unit == "patient" else len(test)) // parts)
    alpha = (1 - config.evaluation.confidence) / max(1, len(section.arms) - 1)
    return Design(observed_spread(compared) or section.plan.spread, section.repeats, folds, units, unit, alpha)


def observed_spread(compared: pd.DataFrame) -> Spread | None:
    """The root mean square of what comparisons have found; None where none could."""
    if compared.empty or not len(known := compared.dropna(subset=["sd_run", "sd_unit", "sd_rest"])):
        return None
    run, unit, rest = (float(np.sqrt((known[f"sd_{name}"] ** 2).mean())) for name in ("run", "unit", "rest"))
    return Spread(run=run, case=unit, rest=max(rest, 1e-9))


def found_by(config: Config, of: Design) -> tuple[float, int | None]:
    """The smallest difference that is found with the wanted power, and the repeats that `plan.effect` takes."""
    plan, seed = config.study.plan, config.evaluation.seed
    tables = simulate(of.spread, max(1, of.repeats), of.folds, of.units, plan.simulations, seed)
    needed = repeats_needed(of.spread, of.folds, of.units, plan.effect, plan.power, of.alpha, plan.simulations, seed)
    return detectable(tables, plan.power, of.alpha), needed


class _Timed(LocalRun):
    """A run that notes when each epoch ends."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        super().__init__(folder, device)
        self.ends: list[float] = []

    def report(self, row: Row | None, save: Callable[[Path], None]) -> None:
        super().report(row, save)
        self.ends.append(time.monotonic())


def epoch_seconds(config: Config, arms: Iterable[str]) -> Iterator[tuple[str, float]]:
    """The seconds of each arm's epoch in this process: the second of two, since the first one warms up."""
    device = device_here(config.cluster)
    with group_of_one(device):
        for arm in arms:
            with tempfile.TemporaryDirectory() as folder:
                run = _Timed(Path(folder), device)
                fit(Planned(arm, 0, None).config(config).override({"training.epochs": 2}), run)
            yield arm, run.ends[1] - run.ends[0]
