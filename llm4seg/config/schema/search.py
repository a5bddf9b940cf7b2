"""Section `search`: the space, the objectives, the algorithm and the budget."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
)
from pydantic import model_validator as validator

from llm4seg.config.earlier import current
from llm4seg.config.schema.base import AtLeastTwo, Overrides, Section

Objective = Literal["val_dice", "parameters", "latency"]
LAYER = "model.llm.layer"
MOST_POINTS = 10_000  # of a space whose points are listed


class Conditional(Section):
    """Base of the distributions. `when`: parameters above this one, with their values for which this one is active."""

    when: dict[
        str, Annotated[tuple[Any, ...], BeforeValidator(lambda value: value if isinstance(value, list) else [value])]
    ]

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that stand for all of them in checks: if these are allowed, all are."""
        raise NotImplementedError

    @property
    def values(self) -> Sequence[Any] | None:
        """All values, where their number is finite; else None."""
        return None

    def counts(self, point: Overrides) -> bool:
        """Whether this parameter is active at a point, which has values for the parameters above it."""
        return all(parent in point and point[parent] in allowed for parent, allowed in self.when.items())


class Choice(Conditional):
    """A categorical distribution: one of some values, without order."""

    choice: Annotated[tuple[Any, ...], Field(min_length=1)]

    @property
    def extremes(self) -> tuple[Any, ...]:
        return self.choice

    @property
    def values(self) -> Sequence[Any]:
        return self.choice


def _rise(ends: tuple[float, float]) -> None:
    if ends[0] >= ends[1]:
        raise ValueError(f"the bounds must rise, found {[*ends]}")


def _between(ends: tuple[float, float]) -> float:
    """A number that is no integer: a parameter that allows integers alone refuses it, and needs randint."""
    return ends[0] + (ends[1] - ends[0]) * 0.618034


class Uniform(Conditional):
    """A uniform distribution of numbers between two bounds."""

    uniform: tuple[float, float]

    @validator(mode="after")
    def _bounds(self) -> Self:
        _rise(self.uniform)
        return self

    @property
    def extremes(self) -> tuple[Any, ...]:
        return (*self.uniform, _between(self.uniform))


class LogUniform(Conditional):
    """A log-uniform distribution of numbers between two positive bounds."""

    loguniform: tuple[PositiveFloat, PositiveFloat]

    @validator(mode="after")
    def _bounds(self) -> Self:
        _rise(self.loguniform)
        return self

    @property
    def extremes(self) -> tuple[Any, ...]:
        return (*self.loguniform, _between(self.loguniform))


class RandInt(Conditional):
    """A uniform distribution of integers between two bounds, both included; ordered, unlike those of `Choice`."""

    randint: tuple[int, int]

    @validator(mode="after")
    def _bounds(self) -> Self:
        _rise(self.randint)
        return self

    @property
    def extremes(self) -> tuple[Any, ...]:
        return self.randint

    @property
    def values(self) -> Sequence[Any]:
        return range(self.randint[0], self.randint[1] + 1)


def _kind(value: Any) -> str | None:
    """The name of a distribution, which is its one key beside `when`."""
    if isinstance(value, Conditional):
        return type(value).__name__.lower()
    keys = set(value) - {"when"} if isinstance(value, dict) else {None}
    return str(keys.pop()) if len(keys) == 1 else None


def _spelled_out(value: Any) -> Any:
    """The full form of a distribution: a plain list is a choice; without `when`, a parameter is always active."""
    if isinstance(value, list | tuple):
        value = {"choice": value}
    return {"when": {}, **value} if isinstance(value, dict) else value


Distribution = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[RandInt, Tag("randint")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message="allowed: a list of values, or one of choice, uniform, loguniform, randint, with `when`",
    ),
    BeforeValidator(_spelled_out),
]


class Asha(Section):
    """ASHA: after `grace` epochs, then `reduction` times as many, the best 1 / `reduction` of the trials go on."""

    grace: PositiveInt
    reduction: AtLeastTwo


def _dice_first(objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
    if objectives[0] != "val_dice" or len(set(objectives)) < len(objectives):
        raise ValueError(f"allowed: val_dice, then any of {', '.join(get_args(Objective)[1:])}")
    return objectives


class Search(Section):
    """The hyperparameter search by Ray Tune: its budget, algorithm, objectives and space of dotted parameters."""

    trials: NonNegativeInt
    epochs: PositiveInt
    total_epochs: PositiveInt | None
    minutes: PositiveFloat | None
    algorithm: Literal["tpe", "random", "grid"]
    asha: Asha | None
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1), AfterValidator(_dice_first)]
    warm_start: bool
    screen: bool
    seed: NonNegativeInt
    space: Annotated[dict[str, Distribution], BeforeValidator(current)]

    @validator(mode="after")
    def _consistent(self) -> Self:
        self._conditions_name_what_is_above()
        if self.algorithm == "grid" and (endless := [name for name, one in self.space.items() if one.values is None]):
            raise ValueError(f"algorithm: found grid, allowed: tpe or random, since {endless[0]} has no list of values")
        if self.algorithm == "grid" and points(self.space) is None:
            raise ValueError(f"algorithm: found grid, allowed: tpe or random above {MOST_POINTS} points of the space")
        if self.screen and (LAYER not in self.space or self.algorithm == "grid"):
            raise ValueError(f"screen: found true, allowed: with {LAYER} in the space and algorithm: tpe or random")
        if self.trials and not self.space:
            raise ValueError("space: found nothing to choose from, allowed: a dotted parameter with its values")
        return self

    def _conditions_name_what_is_above(self) -> None:
        above: dict[str, Conditional] = {}
        for name, one in self.space.items():
            for parent, allowed in one.when.items():
                if parent not in above:
                    raise ValueError(f"space.{name}.when: found {parent}, which does not stand above it in the space")
                known = above[parent].values
                if known is not None and (never := [value for value in allowed if value not in known]):
                    raise ValueError(f"space.{name}.when: found {never[0]!r}, which is no value of {parent} above")
            above[name] = one


def points(space: Mapping[str, Conditional]) -> list[Overrides] | None:
    """All points of a space; None when it has continuous parameters, or more than MOST_POINTS points."""
    every: list[Overrides] = [{}]
    for name, one in space.items():
        if one.values is None:
            return None
        every = list(islice(_extended(every, name, one), MOST_POINTS + 1))
        if len(every) > MOST_POINTS:
            return None
    return every


def _extended(every: list[Overrides], name: str, one: Conditional) -> Iterator[Overrides]:
    """The points with each value of one more parameter, where it is active."""
    for point in every:
        if one.counts(point):
            yield from (point | {name: value} for value in one.values or ())
        else:
            yield point
