"""Simulated studies: random differences and tables of cases with a known effect."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from llm4seg.study.arms import PlannedRun
from llm4seg.study.results import Record, Runs


def cells(
    random: np.random.Generator,
    runs: int,
    units: int,
    effect: float,
    run: float,
    unit: float,
    rest: float,
    folds: int = 1,
    fold: float = 0,
) -> pd.DataFrame:
    """Random differences of the mixed model: in each of `folds`, all `runs` with all `units`."""
    tables = (
        effect
        + random.normal(0, fold, (folds, 1, 1))
        + random.normal(0, run, (folds, runs, 1))
        + random.normal(0, unit, (folds, 1, units))
        + random.normal(0, rest, (folds, runs, units))
    )
    return as_cells(tables)


def as_cells(tables_FRU: np.ndarray) -> pd.DataFrame:
    fold, run, unit = np.indices(tables_FRU.shape).reshape(3, -1)
    names = {"fold": fold, "run": [f"{r}/{f}" for r, f in zip(run, fold, strict=True)]}
    names["unit"] = [f"{f} {u}" for f, u in zip(fold, unit, strict=True)]
    return pd.DataFrame({**names, "difference": tables_FRU.ravel()})


def folded(effects: Mapping[str, float], folds: int, patients: int) -> Runs:
    """As `studied`, a repeat in which each fold tests patients of its own."""
    runs = list[tuple[PlannedRun, Record | None]]()
    for fold in range(folds):
        for run, record in studied(effects, 1, patients, seed=fold):
            assert record is not None
            names = [{key: f"{fold}-{row[key]}" for key in ("case", "group")} for row in record["rows"]]
            rows = [row | own for row, own in zip(record["rows"], names, strict=True)]
            runs.append((PlannedRun(run.arm, 0, fold), {**record, "rows": rows}))
    return runs


def studied(effects: Mapping[str, float], repeats: int, patients: int, slices: int = 1, seed: int = 0) -> Runs:
    """Finished runs on two classes; an arm's Dice lies above the others' by its effect, in every case."""
    random, runs = np.random.default_rng(seed), list[tuple[PlannedRun, Record | None]]()
    cases = [(f"p{p}-{s}", f"p{p}") for p in range(patients) for s in range(slices)]
    level = random.uniform(0.5, 0.8, (len(cases), 2))
    for repeat in range(repeats):
        for arm, effect in effects.items():
            dice = level + effect + random.normal(0, 0.01) + random.normal(0, 0.02, level.shape)
            rows = [
                {"data": "drawn", "case": case, "group": group, "class": f"class {c}", "dice": float(dice[i, c])}
                for i, (case, group) in enumerate(cases)
                for c in range(2)
            ]
            name = f"{arm} {repeat}"
            runs.append(
                (PlannedRun(arm, repeat, None), {"name": name, "rows": rows, "seconds": 60.0, "git_commit": "abc"})
            )
    return runs
