"""Sections `llm`, `data` and `split`: the LLM's source, the images, and the split of cases."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from llm4seg.config.schema.base import SHA256, AtLeastTwo, Fraction, Section


def _regular_expression(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    if groups != 1:
        raise ValueError("must be a regular expression with exactly one group")
    return pattern


Pattern = Annotated[str, AfterValidator(_regular_expression)]


class LLM(Section):
    """The source of the pre-trained LLM, and the layers that the store keeps beside those in use."""

    source: str
    sha256: SHA256 | None
    layer_sha256: dict[NonNegativeInt, SHA256]
    layers: tuple[NonNegativeInt, ...]
    whole_files: bool


class FolderData(Section):
    """A user's own images/ and masks/."""

    path: Path
    classes: Annotated[dict[str, tuple[PositiveInt, ...]], Field(min_length=1)]
    group: Pattern | None

    @model_validator(mode="after")
    def _each_value_means_one_class(self) -> Self:
        values = [value for several in self.classes.values() for value in several]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"mask values {twice} are listed under two classes; each must mean one")
        return self


class PhantomData(Section):
    """Synthetic images of synthetic patients (see `datasets.phantom`)."""

    cases: PositiveInt
    patients: PositiveInt
    classes: PositiveInt
    size: Annotated[tuple[Annotated[int, Field(ge=16)], ...], Field(min_length=2, max_length=3)]
    seed: NonNegativeInt

    @model_validator(mode="after")
    def _a_case_for_each_patient(self) -> Self:
        if self.patients > self.cases:
            raise ValueError(f"patients ({self.patients}) must not exceed cases ({self.cases})")
        return self


class Data(Section):
    """The dataset, the size of the network's input, and the normalization of intensities."""

    dataset: Literal["brain-mri", "lung-ct", "phantom", "folder"]
    spatial_dims: Literal[2, 3]
    size: tuple[PositiveInt, ...]
    intensity: Literal["zscore", "window", "unit", "released"]
    window: tuple[float, float]
    folder: FolderData
    phantom: PhantomData

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.size) != self.spatial_dims:
            raise ValueError(f"size has {len(self.size)} numbers, spatial_dims is {self.spatial_dims}")
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window must rise, found {list(self.window)}")
        return self


class Split(Section):
    """The split of the cases into train, val and test, or into k folds."""

    seed: NonNegativeInt
    rule: Literal["auto", "group", "block"]
    val: Fraction
    test: Fraction
    block: PositiveInt
    gap: NonNegativeInt
    folds: AtLeastTwo
    fold: NonNegativeInt | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}; some must be left to train on")
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold}, allowed: 0 to {self.folds - 1}")
        return self
