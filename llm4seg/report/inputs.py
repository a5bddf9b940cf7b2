"""What the report is made of: the outputs of the stages before it, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm4seg.config import Config
from llm4seg.config.schema import Search
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, read_split
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "val_dice", "lr")


@dataclass(frozen=True)
class Searched:
    """What a search left: its tables, and the section that says what was searched."""

    section: Search
    trials: pd.DataFrame
    epochs: pd.DataFrame
    importance: dict[str, float]

    @property
    def known(self) -> pd.DataFrame:
        """The trials that came through an epoch."""
        return self.trials.dropna(subset="val_dice")


@dataclass(frozen=True)
class Study:
    """What the study left, when it was on and some run has finished."""

    said: dict[str, Any]  # study.json
    cases: pd.DataFrame  # study.csv
    runs: pd.DataFrame
    compared: pd.DataFrame


@dataclass(frozen=True)
class Inputs:
    """Everything on the page."""

    title: str
    settings: dict[str, dict[str, Any]]  # the config's sections that decide the result, as they were run
    data: Prepared
    split: Split
    model: dict[str, Any]  # model.json
    history: pd.DataFrame  # HISTORY_COLUMNS, a row an epoch
    metrics: dict[str, Any]
    cases: pd.DataFrame  # cases.csv
    overlays: dict[str, bytes]  # PNGs by role: best, median, worst
    overrides: dict[str, Any]  # what the search changed; empty when it was off
    searched: Searched | None
    study: Study | None


def read_inputs(config: Config) -> Inputs:
    """Read what the other stages left. Raises InputError naming the file that is missing or broken."""
    paths = config.paths
    overrides, model = read_json(paths.search / "best.json"), read_json(paths.model / "model.json")
    return Inputs(
        title=config.report.title,
        settings=settings(config, model["config"]),
        data=Prepared(paths.prepared),
        split=read_split(paths.split),
        model=model,
        history=read_table(paths.history, *HISTORY_COLUMNS),
        metrics=read_json(paths.metrics),
        cases=read_table(paths.evaluation / "cases.csv", "case", "class", "dice", "baseline_dice"),
        overlays=read_overlays(paths.evaluation / "overlays"),
        overrides=overrides,
        searched=read_search(paths.search) if overrides else None,
        study=read_study(paths.study),
    )


def read_study(folder: Path) -> Study | None:
    """None when the study was off, or no two of its arms can be compared yet."""
    said = read_json(folder / "study.json")
    if not said["verdicts"]:
        return None
    return Study(
        said,
        read_table(folder / "study.csv", "data", "arm", "repeat", "fold", "case", "group", "class", said["metric"]),
        read_table(folder / "runs.csv", "arm", "state", said["metric"]),
        read_table(folder / "comparisons.csv", "data", "arm", "reference", "difference", "low", "high", "p_holm"),
    )


def read_search(folder: Path) -> Searched:
    """Read what the stage `search` left of a search."""
    # an empty cell is a value that was not drawn, `null` is one that was
    trials = read_table(folder / "trials.csv", "number", "status", "epochs", "val_dice", missing=("",))
    epochs = read_table(folder / "epochs.csv", "number", "epoch", "val_dice")
    section = Search.model_validate(read_json(folder / "space.json"))
    return Searched(section, trials, epochs, read_json(folder / "importance.json"))


def settings(config: Config, trained: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`data`, `split`, `evaluation` from params, the rest from the trained model, as the search left it."""
    plain = config.plain()
    data = {name: value for name, value in plain["data"].items() if name not in ("folder", "phantom")}
    if (dataset := config.data.dataset) in ("folder", "phantom"):
        made_of = plain["data"][dataset]
        data[dataset] = {name: value for name, value in made_of.items() if name != "path"}  # differs between machines
    return {"data": data, "split": plain["split"], **trained, "evaluation": plain["evaluation"]}


def read_table(path: Path, *columns: str, missing: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a CSV file that must have these columns and a row. `missing`: cells without a value, if not pandas' own."""
    try:
        table = pd.read_csv(path, na_values=missing, keep_default_na=missing is None)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that makes it (`dvc repro`)") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV table: {error}") from None
    absent = [column for column in columns if column not in table]
    if absent or table.empty:
        found = f"no column {absent[0]!r}" if absent else "no row"
        raise InputError(f"{path}: found {found}; the table must have {', '.join(columns)} and at least one row")
    return table


def read_overlays(folder: Path) -> dict[str, bytes]:
    """The pictures, best first."""
    roles = ("best", "median", "worst")
    found = {role: (folder / f"{role}.png").read_bytes() for role in roles if (folder / f"{role}.png").is_file()}
    if not found:
        raise InputError(f"{folder}: found no picture; run the stage that makes it (`dvc repro evaluate`)")
    return found
