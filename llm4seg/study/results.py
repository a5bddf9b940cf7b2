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
from llm4seg.study.feature_comparisons import (
    COMPARISONS,
    FEATURES,
    SIMILARITY,
    compare_features,
    feature_table,
    feature_verdicts,
)
from llm4seg.study.feature_similarity import mean_similarity, similarity_table
from llm4seg.study.looks import Look, Reached, about_looks, latest
from llm4seg.study.over_data import compare_over_data, verdict_over_data
from llm4seg.study.pairs import with_blocks
from llm4seg.study.verdict import METRICS, caution, verdict
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


def lacks_metric(record: Record | None, metric: str) -> bool:
    """Whether a run has finished and was not measured by this metric."""
    return record is not None and finished(record) and any(metric not in row for row in record["rows"])


@dataclass(frozen=True)
class StudyResult:
    """`summary`: the content of study.json; the tables may be empty.

    `over_data`: comparisons over `study.data`; those of features are of `study.analyze`.
    """

    summary: dict[str, Any]
    cases: pd.DataFrame
    volumes: pd.DataFrame
    runs: pd.DataFrame
    comparisons: pd.DataFrame
    over_data: pd.DataFrame = field(default_factory=pd.DataFrame)
    features: pd.DataFrame = field(default_factory=pd.DataFrame)
    feature_comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    similarity: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def scores(self) -> pd.DataFrame:
        """The table that is compared: that of cases, or of volumes."""
        return self.volumes if self.summary.get("per") == "volume" else self.cases


def results(config: Config, runs: Runs) -> StudyResult:
    """The result of the finished runs."""
    cases, volumes = case_table(runs), case_table(runs, "volume")
    scores = volumes if config.study.per == "volume" else cases
    each, at_look = run_table(runs, config.study), reached(config, runs)
    if config.study.look_repeats:
        comparisons = pd.DataFrame() if at_look is None else at_look.comparisons
        each = _with_skipped(each, at_look)
        content = summary(config, each, comparisons) | _looked(config.study, each, at_look)
    else:
        comparisons = compared(config, scores)
        content = summary(config, each, comparisons)
    if (over_folds := cross_validation(scores, config.study, config.evaluation)) is not None:
        content["cross_validation"] = over_folds
    result = StudyResult(content, cases, volumes, each, comparisons)
    return _with_features(config, runs, _with_data_sets(config, result))


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


def _with_features(config: Config, runs: Runs, result: StudyResult) -> StudyResult:
    """The result with what `study.analyze` measured, and the comparisons of arms in it."""
    done = [(run, record) for run, record in runs if record and finished(record)]
    features = feature_table(done, config.split.block)
    if features.empty:
        return result
    between, alike = compare_features(features, config), similarity_table(done)
    lines = feature_verdicts(between, config.evaluation.confidence)
    content = {**result.summary, "analysis": {"verdicts": lines, "similarity": mean_similarity(alike)}}
    return replace(result, summary=content, features=features, feature_comparisons=between, similarity=alike)


def reached(config: Config, runs: Runs) -> Reached | None:
    """The look at which a study is, by its runs; None before the first, and without looks."""
    if not config.study.look_repeats:
        return None
    table = case_table(runs, config.study.per)
    waiting = [run for run, record in runs if record is None]
    return latest(config.study, waiting, config.evaluation.confidence, lambda look: compared(config, table, look))


def _with_skipped(each: pd.DataFrame, at_look: Reached | None) -> pd.DataFrame:
    """The table of runs, in which those that a look has made needless are `skipped`."""
    if at_look is None or not at_look.stops:
        return each
    needless = (each["repeat"] >= at_look.look.repeats) & (each["state"] == "missing")
    return each.assign(state=each["state"].mask(needless, "skipped"))


def _looked(study: Study, each: pd.DataFrame, at_look: Reached | None) -> dict[str, Any]:
    """Entries of study.json on looks: after how many repeats there are some, which one this is, whether it stopped."""
    return {
        "looks": list(study.look_repeats),
        "look": at_look and at_look.look.number,
        "stopped": at_look is not None and at_look.stops,
        "skipped": int((each["state"] == "skipped").sum()),
        "about_looks": about_looks(study, at_look),
    }


def write(folder: Path, result: StudyResult, write_models: Callable[[Path], None] | None = None) -> None:
    """Write a study's folder, atomically; tables as far as there are runs, that of comparisons always.

    `write_models` adds the models of its runs.
    """
    tables = {"study": result.cases, "volumes": result.volumes, "runs": result.runs, "comparisons": result.comparisons}
    tables |= {FEATURES: result.features, COMPARISONS: result.feature_comparisons, SIMILARITY: result.similarity}
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
        **_read_features(folder, summary.get("analysis")),
    )


def _read_features(folder: Path, analysis: dict[str, Any] | None) -> dict[str, pd.DataFrame]:
    """The tables of features, which are there with study.analyze."""
    if analysis is None:
        return {}
    tables = {"features": read_table(folder / f"{FEATURES}.csv", "arm", "case", "measure", "score")}
    if analysis["verdicts"]:
        tables["feature_comparisons"] = read_table(folder / f"{COMPARISONS}.csv", "measure", *COMPARED[1:])
    return tables


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


def compared(config: Config, table: pd.DataFrame, look: Look | None = None) -> pd.DataFrame:
    """Every arm against every reference, as far as both have finished runs; at a look, those that it is after."""
    if table.empty:
        return pd.DataFrame()
    return compare_all(with_blocks(table, config.split.block), config.study, config.evaluation, look)


def compared_by_metric(config: Config, runs: Runs) -> dict[str, pd.DataFrame]:
    """The comparisons of the finished runs by each metric that all of them have; by `study.metric` in any case."""
    table, of_metric = case_table(runs, config.study.per), {}
    for metric in dict.fromkeys((config.study.metric, *METRICS)):
        measured = [record for _, record in runs if record is not None and finished(record)]
        if metric == config.study.metric or (measured and not any(lacks_metric(one, metric) for one in measured)):
            of_metric[metric] = compared(config.override({"study.metric": metric}), table)
    return of_metric
