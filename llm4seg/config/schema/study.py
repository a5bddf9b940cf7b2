"""Section `study`: arms, repeats, folds, references, and what its planning assumes."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from llm4seg.config.schema.base import Overrides, Section

FOLDER = re.compile(r"[\w+=-][\w .+=-]*")  # a name that is one on any system
PRESET = "preset"  # in an arm, beside dotted parameters: the name of a preset, whose overrides come first


ENOUGH_RUNS = 3  # paired runs, below which a comparison has no p
MODEL = "model"  # of `only`: the model as it is, an arm without overrides


class Spread(Section):
    """Standard deviations of paired differences: between folds, runs, cases (or patients), and residual (`rest`)."""

    fold: NonNegativeFloat
    run: NonNegativeFloat
    case: NonNegativeFloat
    rest: PositiveFloat


class Plan(Section):
    """The power analysis: the effect and the power to plan for, and the spread assumed until runs have finished."""

    effect: PositiveFloat
    power: Annotated[float, Field(gt=0.5, lt=1)]
    simulations: Annotated[int, Field(ge=100)]
    spread: Spread


class Study(Section):
    """Arms, trained and tested alike under the same seeds and folds."""

    repeats: NonNegativeInt
    folds: tuple[NonNegativeInt, ...]
    looks: tuple[PositiveInt, ...] | PositiveInt | None
    metric: Literal["dice", "iou", "nsd", "log_likelihood"]
    per: Literal["case", "volume"]
    keep: Literal["none", "weights"]
    analyze: bool
    arms: Annotated[dict[str, Overrides], Field(min_length=1)]
    only: Annotated[tuple[str, ...], Field(min_length=1)] | None
    references: Annotated[tuple[str, ...], Field(min_length=1)]
    data: tuple[Path, ...]
    other_data: Path | None
    plan: Plan

    @property
    def chosen(self) -> dict[str, Overrides]:
        """The arms that take part, in their order."""
        return {name: self.known[name] for name in (self.arms if self.only is None else self.only)}

    @property
    def chosen_references(self) -> tuple[str, ...]:
        """The references that take part; where none does, the first arm that does is one."""
        chosen = self.chosen
        return tuple(name for name in self.references if name in chosen) or (next(iter(chosen)),)

    @property
    def look_repeats(self) -> tuple[int, ...]:
        """The repeats after which there is a look, the last after all; empty without looks."""
        if not self.repeats:
            return ()
        if isinstance(self.looks, int):
            return tuple(-(-number * self.repeats // self.looks) for number in range(1, self.looks + 1))
        return self.looks or ()

    @property
    def known(self) -> dict[str, Overrides]:
        """The arms by name, and MODEL, if no arm is called so."""
        return {MODEL: {}} | self.arms

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unknown := [name for name in self.only or () if name not in self.known]:
            raise ValueError(f"only: found {unknown[0]!r}, allowed: {', '.join(self.known)}")
        if unknown := [name for name in self.references if name not in self.known]:
            raise ValueError(f"references: found {unknown[0]!r}, allowed: {', '.join(self.known)}")
        if self.keep == "weights" and (astray := [name for name in self.chosen if not FOLDER.fullmatch(name)]):
            raise ValueError(f"arms: found {astray[0]!r}, allowed with keep: weights: names of folders")
        if len(set(self.folds)) < len(self.folds):
            raise ValueError(f"folds: found {list(self.folds)}, allowed: each fold once")
        if twice := [folder for folder in self.data if self.data.count(folder) > 1]:
            raise ValueError(f"data: found {twice[0]} twice, allowed: each data set once")
        if self.data and self.other_data is not None:
            raise ValueError(
                f"other_data: found {self.other_data}, allowed with study.data: null (arms are trained on each of "
                "study.data; on other_data, they are only measured)"
            )
        if self.data and self.analyze:
            raise ValueError("analyze: found true, allowed with study.data: false")
        if self.data and self.looks is not None:
            found = list(self.looks) if isinstance(self.looks, tuple) else self.looks
            raise ValueError(f"looks: found {found}, allowed with study.data: null")
        if self.repeats and self.looks is not None:
            self._check_looks()
        return self

    def _check_looks(self) -> None:
        """Looks have more runs each, the first enough for a p, the last all of them."""
        found = list(self.looks) if isinstance(self.looks, tuple) else self.looks
        ends, folds = self.look_repeats, max(1, len(self.folds))
        if list(ends) != sorted(set(ends)) or ends[-1:] != (self.repeats,):
            raise ValueError(
                f"looks: found {found}, allowed: rising numbers of repeats up to study.repeats ({self.repeats}), or "
                f"how many looks, at most {self.repeats}"
            )
        if ends[0] * folds < ENOUGH_RUNS:
            raise ValueError(
                f"looks: found {found}, whose first has {ends[0] * folds} paired runs, allowed: {ENOUGH_RUNS} or more, "
                "below which there is no p"
            )
