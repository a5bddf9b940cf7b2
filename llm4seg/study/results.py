"""Outputs of a study: tables of its runs, as far as they have finished, comparisons of arms, and verdicts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from llm4seg.config import Config
from llm4seg.config.schema import Study
from llm4seg.study.arms import PlannedRun
from llm4seg.study.comparisons import compare_all
from llm4seg.study.cross_validation import cross_validation
from llm4seg.study.data_sets import described
from llm4seg.study.over_data import compare_over_data, verdict_over_data
from llm4seg.study.pairs import with_blocks
from llm4seg.study.verdict import caution, verdict
from llm4seg.utils.files import read_json, replacing, write_json
from llm4seg.utils.tables import read_table, records

# of a run: name, seconds, rows (of cases), volumes (their rows), versions, git_commit; of a failed run: name and error
Record = dict[str, Any]
# columns of comparisons.csv, among others
COMPARED = ("data", "arm", "reference", "difference", "low", "high", "p_holm")
TABLES = {"case": "rows", "volume": "volumes"}  # of a record, by study.per
Runs = Sequence[tuple[PlannedRun, Record | None]]


def finished(record: Record | None) -> bool:
    """Whether a run has finished, by its record."""
    return record is not None and "rows" in record


@dataclass(frozen=True)
class StudyResult:
    """`summary`: the content of study.json; the tables may be empty. `over_data`: comparisons over `study.data`."""

    summary: dict[str, Any]
    cases: pd.DataFrame
    volumes: pd.DataFrame
    runs: pd.DataFrame
    comparisons: pd.DataFrame
    over_data: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def scores(self) -> pd.DataFrame:
        """The table that is compared: that of cases, or of volumes."""
        return self.volumes if self.summary.get("per") == "volume" else self.cases


def results(config: Config, runs: Runs) -> StudyResult:
    """The result of the finished runs."""
    cases, volumes = case_table(runs), case_table(runs, "volume")
    scores = volumes if config.study.per == "volume" else cases
    comparisons, each = compared(config, scores), run_table(runs, config.study)
    content = summary(config, each, comparisons)
    if (over_folds := cross_validation(scores, config.study, config.evaluation)) is not None:
        content["cross_validation"] = over_folds
    return _with_data_sets(config, StudyResult(content, cases, volumes, each, comparisons))


def _with_data_sets(config: Config, result: StudyResult) -> StudyResult:
    """The result with what identifies the data sets of `study.data`, and the comparisons and verdicts over them."""
    if not config.study.data or result.runs.empty:
        return result
    over = compare_over_data(
        with_blocks(result.scores, config.split.block), result.comparisons, config.study, config.evaluation.confidence
    )
    lines = [verdict_over_data(row, config.study.metric, config.evaluation.confidence) for row in records(over)]
    content = {**result.summary, "verdicts": [*result.summary["verdicts"], *lines], "data_sets": described(config)}
    return replace(result, summary=content, over_data=over)


def write(folder: Path, result: StudyResult, write_models: Callable[[Path], None] | None = None) -> None:
    """Write a study's folder, atomically; tables as far as there are runs, that of comparisons always.

    `write_models` adds the models of its runs.
    """
    tables = {"study": result.cases, "volumes": result.volumes, "runs": result.runs, "comparisons": result.comparisons}
    tables["over_data"] = result.over_data
    with replacing(folder) as partial:
        partial.mkdir()
        write_json(partial / "study.json", result.summary)
        for name, table in tables.items():
            if len(table):
                table.to_csv(partial / f"{name}.csv", index=False, float_format="%.6g")
        if not len(result.comparisons):  # without the file, DVC complains whenever it shows plots
            pd.DataFrame(columns=[*COMPARED]).to_csv(partial / "comparisons.csv", index=False)
        if write_models is not None:
            write_models(partial)


def read(folder: Path) -> StudyResult | None:
    """Read a study's folder; None when the study was off, or there is nothing to show yet: no two of its arms can be
    compared, and none has been tested in a fold.

    Raises InputError naming the file that is missing or broken.
    """
    summary = read_json(folder / "study.json")
    if not summary["verdicts"] and "cross_validation" not in summary:
        return None
    columns = ("data", "arm", "repeat", "fold", "case", "group", "class", summary["metric"])
    per_volume = summary.get("per") == "volume"  # earlier versions compared cases
    return StudyResult(
        summary,
        read_table(folder / "study.csv", *columns),
        read_table(folder / "volumes.csv", *columns) if per_volume else pd.DataFrame(),
        read_table(folder / "runs.csv", "arm", "state", summary["metric"]),
        read_table(folder / "comparisons.csv", *COMPARED) if summary["verdicts"] else pd.DataFrame(),
    )


def case_table(runs: Runs, per: str = "case") -> pd.DataFrame:
    """A row per run, case (or volume) and class: arm, repeat, fold, data, and the metrics of `evaluate`."""
    rows = [
        {"arm": run.arm, "repeat": run.repeat, "fold": run.fold, **row}
        for run, record in runs
        if record is not None and finished(record)
        for row in record.get(TABLES[per], [])
    ]
    return pd.DataFrame(rows)


def run_table(runs: Runs, section: Study) -> pd.DataFrame:
    """A row per run: its state, its mean over cases (or volumes) on its own data, seconds, commit, error."""
    rows, metric = [], section.metric
    for run, record in runs:
        known = record or {}
        if finished(record):
            state = "finished"
        elif known:
            state = "failed"
        else:
            state = "missing"
        cases = pd.DataFrame(known.get(TABLES[section.per], []))
        own = cases[cases["data"] == cases["data"].iloc[0]] if len(cases) else cases
        mean = own.groupby("case")[metric].mean().mean() if len(own) else None
        about = {"arm": run.arm, "repeat": run.repeat, "fold": run.fold, "state": state, metric: mean}
        about |= {} if run.data is None else {"data": run.data}
        rows.append(
            {**about, "seconds": known.get("seconds"), "commit": known.get("git_commit"), "error": known.get("error")}
        )
    return pd.DataFrame(rows)


def summary(config: Config, runs: pd.DataFrame, compared: pd.DataFrame) -> dict[str, Any]:
    """The content of study.json: how far the study is, and its verdicts in plain sentences."""
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
        "per": section.per,
        "block": config.split.block,
        "confidence": config.evaluation.confidence,
        "arms": section.chosen,
        "references": list(section.chosen_references),
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
