"""The runs of a study as tables, whatever part of them has finished."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from llm4seg.config import Config
from llm4seg.study.arms import PlannedRun
from llm4seg.study.comparisons import compare_all
from llm4seg.study.pairs import with_blocks
from llm4seg.study.verdict import caution, verdict

Record = dict[str, Any]  # what a run leaves: name, seconds, rows, versions, git_commit; of a failed one name and error
Runs = Sequence[tuple[PlannedRun, Record | None]]


def finished(record: Record | None) -> bool:
    return record is not None and "rows" in record


def results(config: Config, runs: Runs) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """What the study says, and its tables by name."""
    table = case_table(runs)
    each, found = run_table(runs, config.study.metric), compared(config, table)
    return summary(config, each, found), {"study": table, "runs": each, "comparisons": found}


def case_table(runs: Runs) -> pd.DataFrame:
    """A row a run, case and class: arm, repeat, fold, data, and what `evaluate` measures."""
    rows = [
        {"arm": run.arm, "repeat": run.repeat, "fold": run.fold, **row}
        for run, record in runs
        if record is not None and finished(record)
        for row in record["rows"]
    ]
    return pd.DataFrame(rows)


def run_table(runs: Runs, metric: str) -> pd.DataFrame:
    """A row a run: whether it has finished, its mean over cases on its own data, its seconds, or what made it fail."""
    rows = []
    for run, record in runs:
        known = record or {}
        state = "finished" if finished(record) else "failed" if known else "missing"
        mine = pd.DataFrame(known.get("rows", []))
        own = mine[mine["data"] == mine["data"].iloc[0]] if len(mine) else mine
        mean = own.groupby("case")[metric].mean().mean() if len(own) else None
        about = {"arm": run.arm, "repeat": run.repeat, "fold": run.fold, "state": state, metric: mean}
        rows.append(
            {**about, "seconds": known.get("seconds"), "commit": known.get("git_commit"), "error": known.get("error")}
        )
    return pd.DataFrame(rows)


def summary(config: Config, runs: pd.DataFrame, compared: pd.DataFrame) -> dict[str, Any]:
    """study.json: how far the study is, and what it says in plain sentences."""
    states = runs["state"].tolist() if len(runs) else []
    rows: list[Any] = compared.to_dict("records")
    several = len({row["data"] for row in rows}) > 1
    section = config.study
    return {
        "runs": len(states),
        **{state: states.count(state) for state in ("finished", "failed", "missing")},
        "repeats": section.repeats,
        "folds": list(section.folds),
        "metric": section.metric,
        "confidence": config.evaluation.confidence,
        "arms": section.arms,
        "references": list(section.references),
        "verdicts": [
            (f"on {row['data']}, " if several else "") + verdict(row, section.metric, config.evaluation.confidence)
            for row in rows
        ],
        "cautions": _once(caution(row) for row in rows),
        "commits": _once(runs["commit"].dropna()) if len(runs) else [],
        "failures": _once(runs["error"].dropna()) if len(runs) else [],
    }


def _once(lines: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(line for line in lines if line))


def compared(config: Config, table: pd.DataFrame) -> pd.DataFrame:
    """Every arm against every reference, as far as both have finished runs."""
    if table.empty:
        return pd.DataFrame()
    return compare_all(with_blocks(table, config.split.block), config.study, config.evaluation)
