"""Scores per case of studies and of trained runs, in one table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm4seg.study.pairs import KEYS, with_blocks
from llm4seg.study.verdict import METRICS
from llm4seg.tools.table.method import differing, method_of
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json
from llm4seg.utils.tables import read_table, records

STUDY, RUN = "study.json", "metrics.json"  # what a folder of each has
MODEL = Path("model", "model.json")  # of a trained run
FILES = {"case": ("study.csv", "evaluation/cases.csv"), "volume": ("volumes.csv", "evaluation/volumes.csv")}
NAMES = ["data", "arm", "case", "group", "class"]


@dataclass(frozen=True)
class Scores:
    """`rows`: KEYS, class, block, score, `trained` (whether the models were trained on `data`) and `source`, a row per
    run, case and class; `repeat` numbers seeds, `fold` test parts. `reference`: that of the first study, else None.
    """

    rows: pd.DataFrame
    metric: str
    per: str
    reference: str | None


@dataclass(frozen=True)
class Source:
    """The folder of a study or of a trained run, with the name that its method gets, if somebody gave one."""

    folder: Path
    name: str | None
    shown: str  # in messages

    @property
    def is_study(self) -> bool:
        return (self.folder / STUDY).is_file()


def sources_in(folder: Path, name: str | None) -> list[Source]:
    """The studies and trained runs in a folder: itself, or those one or two levels below it.

    Raises InputError where there is none.
    """
    for pattern in ("", "[!.]*", "[!.]*/[!.]*"):
        below = sorted(folder.glob(pattern)) if pattern else [folder]
        if found := [path for path in below if any((path / file).is_file() for file in (STUDY, RUN))]:
            return [Source(path, name, str(path)) for path in found]
    raise InputError(
        f"{folder}: found no {STUDY} (of a study) and no {RUN} (of a trained model), allowed: a folder of one, "
        "or of several of these folders"
    )


def read_scores(sources: Sequence[Source], metric: str | None, per: str | None, block: int) -> Scores:
    """The scores of all sources. `metric`, `per`: None for those of the first study, else Dice per case; `block`: the
    slices of a block where a study does not say.

    Raises InputError naming the file that is missing or broken, or the runs that cannot be told apart.
    """
    studies = [read_json(source.folder / STUDY) for source in sources if source.is_study]
    first = studies[0] if studies else {}
    metric, per = metric or first.get("metric", "dice"), per or first.get("per", "case")
    assert metric in METRICS
    tables = [_of_study(source, metric, per, block) for source in sources if source.is_study]
    runs = [_of_run(source, metric, per) for source in sources if not source.is_study]
    rows = pd.concat([*tables, *_with_folds(runs)], ignore_index=True)
    _check_once(rows)
    known = [name for name in first.get("references", []) if (rows["arm"] == name).any()]
    return Scores(rows, metric, per, known[0] if known else None)


def _of_study(source: Source, metric: str, per: str, block: int) -> pd.DataFrame:
    """The rows of a study; with `source.name`, which comes before the names of its arms.

    Data that its models were not trained on (`study.other_data`) are named with what they were trained on.
    """
    summary = read_json(source.folder / STUDY)
    table = _read(source.folder / FILES[per][0], metric, *KEYS)
    trained = [one["name"] for one in summary.get("data_sets", [])] or [table["data"].iloc[0]]
    table["trained"] = table["data"].isin(trained)
    other = table["data"] + f" (trained on {trained[0]})"
    table["data"] = table["data"].where(table["trained"], other)
    if source.name is not None:
        table["arm"] = f"{source.name}: " + table["arm"]
    return _columns(with_blocks(table, summary.get("block", block)), metric, source)


def _of_run(source: Source, metric: str, per: str) -> pd.DataFrame:
    """The rows of a trained run, its seed as `repeat`."""
    about = read_json(source.folder / MODEL)
    table = _read(source.folder / FILES[per][1], metric, "case", "group", "class")
    try:
        name, seed, data = method_of(about), about["config"]["training"]["seed"], about["data"]["name"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{source.folder / MODEL}: not what `train` wrote ({error!r})") from None
    fixed = {"data": data, "arm": source.name or name, "repeat": seed, "fold": None, "block": None, "trained": True}
    return _columns(table.assign(**fixed), metric, source)


def _read(path: Path, metric: str, *columns: str) -> pd.DataFrame:
    table = read_table(path, *columns, metric)
    names = [name for name in NAMES if name in table]
    return table.assign(**{name: table[name].astype(str) for name in names})


def _columns(table: pd.DataFrame, metric: str, source: Source) -> pd.DataFrame:
    """The columns of `Scores.rows`; not yet of one type in `fold`."""
    chosen = table.assign(score=table[metric], source=source.shown)
    return chosen[[*KEYS, "class", "block", "score", "trained", "source"]].astype({"block": object, "fold": object})


def _with_folds(runs: Sequence[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Trained runs with the number of their test part as `fold`: the runs of a data set that test the same cases have
    the same; None where all do.
    """
    parts: dict[str, list[frozenset[str]]] = {}
    for run in runs:
        known = parts.setdefault(run["data"].iloc[0], [])
        if (cases := frozenset(run["case"])) not in known:
            known.append(cases)
    for run in runs:
        known = parts[run["data"].iloc[0]]
        yield run.assign(fold=known.index(frozenset(run["case"])) if len(known) > 1 else None)


def shared_cases(rows: pd.DataFrame) -> list[str]:
    """The data sets of which a case is tested in several folds under one seed: these folds are not independent."""
    tested = rows.assign(fold=rows["fold"].fillna(-1)).groupby(["data", "arm", "repeat", "case"])["fold"].nunique()
    return sorted({str(key[0]) for key in tested[tested > 1].index})


def _check_once(rows: pd.DataFrame) -> None:
    """Raise InputError where two sources have a run of one method, data set, seed and test part."""
    known = rows.assign(fold=rows["fold"].fillna(-1))
    for run in records(known.groupby(["data", "arm", "repeat", "fold"])["source"].unique().reset_index()):
        if len(found := run["source"]) > 1:
            of = f"{run['arm']} on {run['data']}, repeat or seed {run['repeat']}"
            raise InputError(
                f"{of}: found in {found[0]} and {found[1]}, allowed: one of them; "
                "other methods need other names: NAME=FOLDER"
            )


def check_methods(sources: Sequence[Source]) -> None:
    """Raise InputError where trained runs on one data set are called the same, but were not trained alike."""
    first: dict[tuple[str, str], tuple[Source, Any]] = {}
    for source in (one for one in sources if not one.is_study and one.name is None):
        about = read_json(source.folder / MODEL)
        method = method_of(about)
        before, known = first.setdefault((method, about["data"]["name"]), (source, about))
        if names := differing(known, about):
            raise InputError(
                f"{source.shown} and {before.shown}: both are {method}, but differ in {', '.join(names[:3])}; "
                "allowed: runs of one method, or a name for each: NAME=FOLDER"
            )
