"""Which point of the space to try next: Optuna's samplers, asked through Ray Tune's interface for searchers."""

import json
import random
import sys
import time
import warnings
from collections.abc import Mapping
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

optuna.logging.set_verbosity(optuna.logging.WARNING)

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)  # of what failed, nothing is learnt
ATTEMPTS = 10  # to have a new point out of a sampler that likes an old one
RANDOM_ATTEMPTS = 200  # after these, where points cannot be counted; then there seems to be none
DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "val_dice": "maximize",
    "parameters": "minimize",
    "latency": "minimize",
}


def draw(asked: optuna.Trial, space: Mapping[str, Conditional]) -> Overrides:
    """A point of the space, each parameter drawn only where it counts."""
    point: Overrides = {}
    for name, one in space.items():
        if one.counts(point):
            point[name] = _value(asked, name, one)
    return point


def _value(asked: optuna.Trial, name: str, one: Conditional) -> Any:
    match one:
        case Choice(choice=values):  # as JSON, since a value may be a list
            return json.loads(asked.suggest_categorical(name, [json.dumps(value) for value in values]))
        case RandInt(randint=(low, high)):
            return asked.suggest_int(name, low, high)
        case Uniform(uniform=(low, high)):
            return asked.suggest_float(name, low, high)
        case LogUniform(loguniform=(low, high)):
            return asked.suggest_float(name, low, high, log=True)
    raise AssertionError(one)


def _as_optuna_has_it(point: Overrides, space: Mapping[str, Conditional]) -> dict[str, Any]:
    return {name: json.dumps(value) if isinstance(space[name], Choice) else value for name, value in point.items()}


def _as_written(params: dict[str, Any], space: Mapping[str, Conditional]) -> Overrides:
    return {name: json.loads(value) if isinstance(space[name], Choice) else value for name, value in params.items()}


def _key(point: Overrides) -> str:
    """Names a point: equal names, equal points."""
    return json.dumps(point, sort_keys=True)


def build_sampler(algorithm: str, *seeds: int) -> BaseSampler:
    """The sampler for one question. A new one each time, so that a restored search asks as an undisturbed one does."""
    seed = int(np.random.default_rng(seeds).integers(2**31))
    if algorithm == "tpe":
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            # trials under way count as poor, so that several at a time do not all try the same
            return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    return RandomSampler(seed=seed)


class OptunaSearcher(Searcher):
    """Suggests each point at most once, until trials, points or the budget are used up. Can be saved and restored."""

    def __init__(self, section: Search) -> None:
        super().__init__(metric="best_dice", mode="max")
        self._section = section
        self._study = optuna.create_study(directions=[DIRECTIONS[name] for name in section.objectives])
        self._asks = 0
        self._asked: dict[str, optuna.Trial] = {}
        self._epochs: dict[str, int] = {}
        self._points = _shuffled(section)
        self._tried: set[str] = set()
        self._seconds, self._since = 0.0, time.monotonic()
        self._at_a_time = 1

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        self._at_a_time = max_concurrent
        return True  # Tune's own limiter forgets what was under way when it is restored

    def suggest(self, trial_id: str) -> Any:
        self._look_at_the_clock()
        all_tried = self._points is not None and self._points.keys() <= self._tried
        if all_tried or self._spent():
            return self.FINISHED
        if len(self._asked) >= self._at_a_time:
            return None
        if (found := self._new_point()) is None:
            return self.FINISHED
        self._asked[trial_id], point = found
        self._tried.add(_key(point))
        return {"overrides": point}

    def _new_point(self) -> tuple[optuna.Trial, Overrides] | None:
        """A point that was not tried, with Optuna's trial of it; None where none turns up."""
        algorithm = self._section.algorithm
        if algorithm != "grid" and (found := self._drawn(algorithm, ATTEMPTS)):
            return found
        if self._points is None:
            return self._drawn("random", RANDOM_ATTEMPTS)
        point = next(point for key, point in self._points.items() if key not in self._tried)
        return self._ask_for(point), point

    def _drawn(self, algorithm: str, attempts: int) -> tuple[optuna.Trial, Overrides] | None:
        for _ in range(attempts):
            self._asks += 1
            self._study.sampler = build_sampler(algorithm, self._section.seed, self._asks)
            asked = self._study.ask()
            point = draw(asked, self._section.space)
            if _key(point) not in self._tried:
                return asked, point
            self._study.tell(asked, state=TrialState.FAIL)
        return None

    def _ask_for(self, point: Overrides) -> optuna.Trial:
        """Optuna's trial of a point that is given."""
        self._study.enqueue_trial(_as_optuna_has_it(point, self._section.space))
        asked = self._study.ask()
        assert draw(asked, self._section.space) == point
        return asked

    def _look_at_the_clock(self) -> None:
        """Only time in which the search ran counts."""
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now

    def _spent(self) -> bool:
        section = self._section
        epochs_are = section.total_epochs is not None and sum(self._epochs.values()) >= section.total_epochs
        return epochs_are or (section.minutes is not None and self._seconds >= 60 * section.minutes)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" not in result or result["epoch"] <= self._epochs.get(trial_id, 0):
            return  # told again after a restart
        self._epochs[trial_id] = result["epoch"]
        if len(self._section.objectives) == 1 and trial_id in self._asked:
            self._asked[trial_id].report(result["best_dice"], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._look_at_the_clock()
        self.on_trial_result(trial_id, result or {})
        asked = self._asked.pop(trial_id, None)
        if asked is None:  # lost with the last second of notes
            return
        if error or not result or "epoch" not in result or "error" in result:
            self._study.tell(asked, state=TrialState.FAIL)
            return
        values = [result["best_dice" if name == "val_dice" else name] for name in self._section.objectives]
        if len(values) == 1 and result["epoch"] < self._section.epochs:  # stopped early: what it reported counts
            self._study.tell(asked, state=TrialState.PRUNED)
        else:
            self._study.tell(asked, values)

    def reconcile(self, points_by_trial: Mapping[str, Overrides]) -> None:
        """Agree with Tune on which trials there are: a kill may have come between its notes and these."""
        for lost in self._asked.keys() - points_by_trial.keys():
            asked = self._asked.pop(lost)
            self._study.tell(asked, state=TrialState.FAIL)
            self._tried.discard(_key(_as_written(asked.params, self._section.space)))
        self._tried.update(map(_key, points_by_trial.values()))

    def save(self, checkpoint_path: str) -> None:
        self._look_at_the_clock()
        trials = self._study.get_trials(deepcopy=False)
        noted = {
            "asks": self._asks,
            "seconds": self._seconds,
            "epochs": self._epochs,
            "tried": sorted(self._tried),
            "ended": [_noted(one) for one in trials if one.state in ENDED],
            "asked": {trial_id: _noted(trials[asked.number]) for trial_id, asked in self._asked.items()},
        }
        Path(checkpoint_path).write_text(json.dumps(noted), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        self._since = time.monotonic()
        try:
            noted = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        except ValueError:
            print("search: a kill cut the sampler's notes short; it learns anew, the trials are kept", file=sys.stderr)
            return
        self._asks, self._seconds, self._epochs = noted["asks"], noted["seconds"], noted["epochs"]
        self._tried = set(noted["tried"])
        for one in noted["ended"]:
            self._study.add_trial(_ended(one, self._section.space))
        for trial_id, one in noted["asked"].items():
            self._asked[trial_id] = self._ask_for(_as_written(one["params"], self._section.space))
            for epoch, dice in one["reported"].items():
                self._asked[trial_id].report(dice, int(epoch))


def _shuffled(section: Search) -> dict[str, Overrides] | None:
    """Every point by its name, in random order; None where they cannot be counted."""
    found = points(section.space)
    if found is not None:
        random.Random(section.seed).shuffle(found)
    return None if found is None else {_key(point): point for point in found}


def _noted(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    values = trial.values if trial.state == TrialState.COMPLETE else None
    return {
        "params": trial.params,
        "state": trial.state.name,
        "values": values,
        "reported": trial.intermediate_values,
    }


def _ended(noted: dict[str, Any], space: Mapping[str, Conditional]) -> optuna.trial.FrozenTrial:
    """Optuna's record of a trial out of the notes."""
    return create_trial(
        params=noted["params"],
        distributions={name: _distribution(space[name]) for name in noted["params"]},
        state=TrialState[noted["state"]],
        values=noted["values"],
        intermediate_values={int(epoch): dice for epoch, dice in noted["reported"].items()},
    )


def _distribution(one: Conditional) -> BaseDistribution:
    match one:
        case Choice(choice=values):
            return CategoricalDistribution([json.dumps(value) for value in values])
        case RandInt(randint=(low, high)):
            return IntDistribution(low, high)
        case Uniform(uniform=(low, high)):
            return FloatDistribution(low, high)
        case LogUniform(loguniform=(low, high)):
            return FloatDistribution(low, high, log=True)
    raise AssertionError(one)
