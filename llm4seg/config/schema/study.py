"""Section `study`: arms, repeats, folds, references, and what its planning assumes."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from llm4seg.config.schema.base import Overrides, Section

PRESET = "preset"  # in an arm, beside dotted parameters: the name of a preset, whose overrides come first


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
    metric: Literal["dice", "iou", "nsd"]
    per: Literal["case", "volume"]
    arms: Annotated[dict[str, Overrides], Field(min_length=2)]
    references: Annotated[tuple[str, ...], Field(min_length=1)]
    other_data: Path | None
    plan: Plan

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unknown := [name for name in self.references if name not in self.arms]:
            raise ValueError(f"references: found {unknown[0]!r}, allowed: {', '.join(self.arms)}")
        if len(set(self.folds)) < len(self.folds):
            raise ValueError(f"folds: found {list(self.folds)}, allowed: each fold once")
        return self
