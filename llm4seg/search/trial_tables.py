"""Tables of Ray Tune's results: a row per trial, a row per epoch, the best trial, and parameter importance."""

import json
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from llm4seg.cluster.failures import failed_too_often, root_cause
from llm4seg.config.schema import Choice, Conditional, Search
from llm4seg.search.results import SearchResult
from llm4seg.search.searcher import DIRECTIONS
from llm4seg.utils.errors import InputError

EPOCH_COLUMNS = ["epoch", "train_loss", "val_loss", "val_dice", "seconds"]
FEWEST = 5  # trials that importance needs


def collect(results: Any, section: Search, retries: int) -> SearchResult:
    """The SearchResult of Tune's results; `retries`: restarts of a trial whose process dies. Raises InputError when all
    trials failed.
    """
    trials = pd.DataFrame([_row(number, result, section, retries) for number, result in enumerate(results)])
    if "val_dice" not in trials or trials["val_dice"].isna().all():
        raise InputError(f"search: every trial failed, the first with: {trials['error'].iloc[0]}")
    trials["pareto"] = pareto(trials, section)
    trials = trials.sort_values("val_dice", ascending=False, ignore_index=True, kind="stable")
    best = results[int(trials["number"].iloc[0])].config["overrides"]
    return SearchResult(section, best, trials, _epochs(results), importance(trials, section))


def _row(number: int, result: Any, section: Search, retries: int) -> dict[str, Any]:
    metrics = result.metrics or {}
    epochs = int(metrics.get("epoch", 0))
    error = failed_too_often(root_cause([result.error]), retries) if result.error else metrics.get("error", "")
    status = "failed" if error else "finished" if epochs >= section.epochs else "stopped"
    overrides = (result.config or {}).get("overrides", {})  # Tune has none of a trial that died before any result
    points = {name: _cell(overrides[name]) if name in overrides else None for name in section.space}
    values: dict[str, Any] = {
        name: metrics.get("best_dice" if name == "val_dice" else name) for name in section.objectives
    }
    if error:
        values = dict.fromkeys(values)
    return {"number": number, **points, "status": status, "epochs": epochs, **values, "error": error}


def _cell(value: Any) -> Any:
    """The cell of a drawn value; an empty cell means that no value was drawn."""
    return json.dumps(value) if value is None or isinstance(value, list | dict) else value


def _epochs(results: Any) -> pd.DataFrame:
    tables = []
    for number, result in enumerate(results):
        table = result.metrics_dataframe
        if table is not None and "val_dice" in table:
            table = (
                table.rename(columns={"time_this_iter_s": "seconds"})[EPOCH_COLUMNS]
                .dropna(subset="epoch")
                .drop_duplicates("epoch", keep="last")
            )
            tables.append(table.assign(number=number))
    return pd.concat(tables, ignore_index=True)[["number", *EPOCH_COLUMNS]]


def pareto(trials: pd.DataFrame, section: Search) -> np.ndarray:
    """Whether each trial is on the Pareto front: no other is at least as good in all objectives and better in one."""
    signs = [1 if DIRECTIONS[name] == "maximize" else -1 for name in section.objectives]
    values_NO = trials[list(section.objectives)].astype(float).to_numpy() * signs
    known = np.array([not np.isnan(values_O).any() for values_O in values_NO])
    beaten = [
        bool(((values_NO >= values_O).all(axis=1) & (values_NO > values_O).any(axis=1)).any()) if complete else True
        for values_O, complete in zip(values_NO, known, strict=True)
    ]
    return ~np.array(beaten)


def importance(trials: pd.DataFrame, section: Search) -> dict[str, float]:
    """Importance (PED-ANOVA) of each parameter that every trial draws, as a share; empty with too few trials."""
    known = trials.dropna(subset="val_dice")
    always = [name for name, dimension in section.space.items() if not dimension.when and known[name].nunique() > 1]
    if len(known) < FEWEST or not always or known["val_dice"].nunique() < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    distributions = {name: _distribution(known[name], section.space[name]) for name in always}
    for row in known.to_dict("records"):
        params = {name: _to_optuna(row[name], section.space[name]) for name in always}
        study.add_trial(create_trial(params=params, distributions=distributions, value=row["val_dice"]))
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=always)
    return {name: round(value, 4) for name, value in shares.items()}


def _distribution(column: pd.Series, dimension: Conditional) -> optuna.distributions.BaseDistribution:
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(sorted(set(map(str, column))))
    return optuna.distributions.FloatDistribution(float(column.min()), float(column.max()))


def _to_optuna(value: Any, dimension: Conditional) -> str | float:
    return str(value) if isinstance(dimension, Choice) else float(value)
