"""Searcher: suggests the next point of the search space, by Optuna's samplers behind Ray Tune's Searcher interface."""

import json
import logging
import random
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from llm4seg.config.schema import Choice, Conditional, LogUniform, Overrides, RandInt, Search, Uniform, points

log = logging.getLogger(__name__)

optuna.logging.set_verbosity(optuna.logging.WARNING)

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)  # samplers do not learn from failed trials
ATTEMPTS = 10  # to draw a new point from a sampler that repeats earlier points
RANDOM_ATTEMPTS = 200  # to draw a new point where points cannot be counted; then none seems to be left
DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "val_dice": "maximize",
    "parameters": "minimize",
    "latency": "minimize",
}


def draw(trial: optuna.Trial, space: Mapping[str, Conditional]) -> Overrides:
    """A point of the space; draws a parameter only where its condition holds."""
    point: Overrides = {}
    for name, dimension in space.items():
        if dimension.counts(point):
            point[name] = _value(trial, name, dimension)
    return point


def _value(trial: optuna.Trial, name: str, dimension: Conditional) -> Any:
    match dimension:
        case Choice(choice=values):  # as JSON, since a value may be a list
            return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in values]))
        case RandInt(randint=(low, high)):
            return trial.suggest_int(name, low, high)
        case Uniform(uniform=(low, high)):
            return trial.suggest_float(name, low, high)
        case LogUniform(loguniform=(low, high)):
            return trial.suggest_float(name, low, high, log=True)
    raise AssertionError(dimension)


def _to_optuna(point: Overrides, space: Mapping[str, Conditional]) -> dict[str, Any]:
    """Optuna's params of a point: choices as JSON."""
    return {name: json.dumps(value) if isinstance(space[name], Choice) else value for name, value in point.items()}


def _from_optuna(params: dict[str, Any], space: Mapping[str, Conditional]) -> Overrides:
    """The point of Optuna's params."""
    return {name: json.loads(value) if isinstance(space[name], Choice) else value for name, value in params.items()}


def _key(point: Overrides) -> str:
    """The key of a point: equal keys, equal points."""
    return json.dumps(point, sort_keys=True)


def build_sampler(algorithm: str, *seeds: int) -> BaseSampler:
    """The sampler of one draw. New for each draw, so that a restored search draws as an uninterrupted search does."""
    seed = int(np.random.default_rng(seeds).integers(2**31))
    if algorithm == "tpe":
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            # running trials count as poor, so that concurrent trials do not all try the same point
            return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    return RandomSampler(seed=seed)


class OptunaSearcher(Searcher):
    """Suggests each point at most once, until trials, points or the budget are used up. Its state can be saved.

    `first`: values of some parameters that the first points have, a point each; the sampler draws their others.
    """

    def __init__(self, section: Search, first: Sequence[Overrides] = ()) -> None:
        super().__init__(metric="best_dice", mode="max")
        self._section = section
        self._study = optuna.create_study(directions=[DIRECTIONS[name] for name in section.objectives])
        self._draws = 0
        self._running: dict[str, optuna.Trial] = {}
        self._epochs: dict[str, int] = {}
        self._points = _shuffled(section)
        self._tried: set[str] = set()
        self._first = list(first)
        self._seconds, self._since = 0.0, time.monotonic()
        self._max_concurrent = 1

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        self._max_concurrent = max_concurrent
        return True  # Tune's own limiter does not restore which trials were running

    def suggest(self, trial_id: str) -> Any:
        self._update_seconds()
        all_tried = self._points is not None and self._points.keys() <= self._tried
        if all_tried or self._budget_is_spent():
            return self.FINISHED
        if len(self._running) >= self._max_concurrent:
            return None
        if (found := self._new_point()) is None:
            return self.FINISHED
        self._running[trial_id], point = found
        self._tried.add(_key(point))
        return {"overrides": point}

    def _new_point(self) -> tuple[optuna.Trial, Overrides] | None:
        """A new point with its Optuna trial; None if no new point is found."""
        algorithm = self._section.algorithm
        while self._first:
            if found := self._draw(algorithm, ATTEMPTS, self._first.pop(0)):
                return found
        if algorithm != "grid" and (found := self._draw(algorithm, ATTEMPTS)):
            return found
        if self._points is None:
            return self._draw("random", RANDOM_ATTEMPTS)
        point = next(point for key, point in self._points.items() if key not in self._tried)
        return self._trial_of(point), point

    def _draw(
        self, algorithm: str, attempts: int, fixed: Overrides | None = None
    ) -> tuple[optuna.Trial, Overrides] | None:
        """A new point of a sampler, `fixed` in some parameters, with its Optuna trial; None after `attempts` earlier
        points.
        """
        for _ in range(attempts):
            self._draws += 1
            self._study.sampler = build_sampler(algorithm, self._section.seed, self._draws)
            if fixed:
                self._study.enqueue_trial(_to_optuna(fixed, self._section.space))
            trial = self._study.ask()
            point = draw(trial, self._section.space)
            if _key(point) not in self._tried:
                return trial, point
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def _trial_of(self, point: Overrides) -> optuna.Trial:
        """An Optuna trial of a given point."""
        self._study.enqueue_trial(_to_optuna(point, self._section.space))
        trial = self._study.ask()
        assert draw(trial, self._section.space) == point
        return trial

    def _update_seconds(self) -> None:
        """Add the time since the last call; time between an interruption and a restore does not count."""
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now

    def _budget_is_spent(self) -> bool:
        section = self._section
        epochs_are_spent = section.total_epochs is not None and sum(self._epochs.values()) >= section.total_epochs
        return epochs_are_spent or (section.minutes is not None and self._seconds >= 60 * section.minutes)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" not in result or result["epoch"] <= self._epochs.get(trial_id, 0):
            return  # a repeated report after a restart
        self._epochs[trial_id] = result["epoch"]
        if len(self._section.objectives) == 1 and trial_id in self._running:
            self._running[trial_id].report(result["best_dice"], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._update_seconds()
        self.on_trial_result(trial_id, result or {})
        trial = self._running.pop(trial_id, None)
        if trial is None:  # lost by a kill before the state was saved
            return
        if error or not result or "epoch" not in result or "error" in result:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        values = [result["best_dice" if name == "val_dice" else name] for name in self._section.objectives]
        if len(values) == 1 and result["epoch"] < self._section.epochs:  # stopped early: its reports count
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, values)

    def reconcile(self, points_by_trial: Mapping[str, Overrides]) -> None:
        """Match the trials with Tune's (points by trial id): a kill may have come between the saves of both states."""
        for lost in self._running.keys() - points_by_trial.keys():
            trial = self._running.pop(lost)
            self._study.tell(trial, state=TrialState.FAIL)
            self._tried.discard(_key(_from_optuna(trial.params, self._section.space)))
        self._tried.update(map(_key, points_by_trial.values()))

    def save(self, checkpoint_path: str) -> None:
        self._update_seconds()
        trials = self._study.get_trials(deepcopy=False)
        state = {
            "asks": self._draws,
            "seconds": self._seconds,
            "epochs": self._epochs,
            "tried": sorted(self._tried),
            "first": self._first,
            "ended": [_to_json(trial) for trial in trials if trial.state in ENDED],
            "asked": {trial_id: _to_json(trials[trial.number]) for trial_id, trial in self._running.items()},
        }
        Path(checkpoint_path).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        self._since = time.monotonic()
        try:
            state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        except ValueError:
            log.warning("search: a kill cut the sampler's notes short; it learns anew, the trials are kept")
            return
        self._draws, self._seconds, self._epochs = state["asks"], state["seconds"], state["epochs"]
        self._tried, self._first = set(state["tried"]), state.get("first", [])
        for ended in state["ended"]:
            self._study.add_trial(_from_json(ended, self._section.space))
        for trial_id, running in state["asked"].items():
            self._running[trial_id] = self._trial_of(_from_optuna(running["params"], self._section.space))
            for epoch, dice in running["reported"].items():
                self._running[trial_id].report(dice, int(epoch))


def _shuffled(section: Search) -> dict[str, Overrides] | None:
    """Every point by its key, in random order; None where the space is not finite."""
    found = points(section.space)
    if found is not None:
        random.Random(section.seed).shuffle(found)
    return None if found is None else {_key(point): point for point in found}


def _to_json(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """The record of an Optuna trial in the saved state."""
    values = trial.values if trial.state == TrialState.COMPLETE else None
    return {
        "params": trial.params,
        "state": trial.state.name,
        "values": values,
        "reported": trial.intermediate_values,
    }


def _from_json(record: dict[str, Any], space: Mapping[str, Conditional]) -> optuna.trial.FrozenTrial:
    """The ended Optuna trial of a record in the saved state."""
    return create_trial(
        params=record["params"],
        distributions={name: _distribution(space[name]) for name in record["params"]},
        state=TrialState[record["state"]],
        values=record["values"],
        intermediate_values={int(epoch): dice for epoch, dice in record["reported"].items()},
    )


def _distribution(dimension: Conditional) -> BaseDistribution:
    match dimension:
        case Choice(choice=values):
            return CategoricalDistribution([json.dumps(value) for value in values])
        case RandInt(randint=(low, high)):
            return IntDistribution(low, high)
        case Uniform(uniform=(low, high)):
            return FloatDistribution(low, high)
        case LogUniform(loguniform=(low, high)):
            return FloatDistribution(low, high, log=True)
    raise AssertionError(dimension)
