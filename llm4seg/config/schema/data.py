"""Sections `llm`, `data` and `split`: the LLM's source, the images, and the split of cases."""

import re
from pathlib import Path, PurePath
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from llm4seg.config.schema.base import SHA256, AtLeastTwo, Fraction, Section


def _regular_expression(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    if groups != 1:
        raise ValueError("must be a regular expression with exactly one group")
    return pattern


Color = Annotated[str, AfterValidator(str.lower), Field(pattern="^#[0-9a-fA-F]{6}$")]
BACKGROUND = "background"  # of data.folder.classes: no class, but the values of what is none
COLOR, GRAY = 1 << 32, 0x010101  # a color's code is larger than every gray value; gray n is n * GRAY
Pattern = Annotated[str, AfterValidator(_regular_expression)]


class LLM(Section):
    """The source of the pre-trained LLM, and the layers that the store keeps beside those in use."""

    source: str
    sha256: SHA256 | None
    layer_sha256: dict[NonNegativeInt, SHA256]
    layers: tuple[NonNegativeInt, ...]
    whole_files: bool


class FolderData(Section):
    """A user's own images/ and masks/. `classes`: the mask values of each, gray or colors ("#rrggbb").

    0, black, is background. Values listed under `background` are, too; then 0 may be a class's.
    """

    path: Path
    classes: Annotated[dict[str, tuple[NonNegativeInt | Color, ...]], Field(min_length=1)]
    group: Pattern | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes but for background: the k-th has label k + 1."""
        return tuple(name for name in self.classes if name != BACKGROUND)

    @property
    def labels(self) -> dict[int, int]:
        """The label of each mask value: gray as it is, a color as COLOR + 0xrrggbb."""
        found = {0: 0, COLOR: 0}
        for name, values in self.classes.items():
            label = 0 if name == BACKGROUND else self.class_names.index(name) + 1
            found.update({code: label for value in values for code in mask_codes(value)})
        return found

    @field_validator("classes")
    @classmethod
    def _each_value_means_one_class(cls, classes: dict[str, tuple[int | str, ...]]) -> dict[str, tuple[int | str, ...]]:
        if set(classes) == {BACKGROUND}:
            raise ValueError(f"found {BACKGROUND} alone, allowed: a class beside it")
        seen: set[int] = set()
        for name, values in classes.items():
            for value in values:
                codes = mask_codes(value)
                if seen.intersection(codes):
                    raise ValueError(f"mask values [{value}] are listed under two classes; each must mean one")
                seen.update(codes)
                if 0 in codes and name != BACKGROUND and not classes.get(BACKGROUND):
                    raise ValueError(f"found {value} for {name}, allowed: greater than 0, which is {BACKGROUND}")
        return classes


def mask_codes(value: int | str) -> tuple[int, ...]:
    """What stands for a listed mask value in `FolderData.labels`: a gray value is a color, too."""
    if isinstance(value, str):
        color = int(value[1:], 16)
        gray = color & 0xFF
        return (gray, COLOR + color) if color == gray * GRAY else (COLOR + color,)
    return (value, COLOR + value * GRAY) if value < 256 else (value,)


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


def _list_files(value: object) -> object:
    """A validator of `split.file`; raises ValueError unless its files are below the folder of the data."""
    files = value if isinstance(value, dict) else {} if value is None else {"test": value}
    inside = [isinstance(file, str) and _is_inside(file) for file in files.values()]
    if value == {} or not all(inside) or not set(files) <= {"train", "val", "test"}:
        found = f", found {value}" if isinstance(value, dict) else ""
        raise ValueError(f"must be a file inside data.folder.path, relative to it, or such by train, val, test{found}")
    return value


def _is_inside(file: str) -> bool:
    path = PurePath(file)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and "\0" not in file


LISTED = ("official", "file")  # rules by which somebody else's lists decide, the number of folds, too


class Split(Section):
    """The split of the cases into train, val and test, or into k folds."""

    seed: NonNegativeInt
    rule: Literal["auto", "group", "block", "official", "file", "random"]
    file: Annotated[str | dict[str, str] | None, BeforeValidator(_list_files)]
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
        if self.rule == "file" and self.file is None:
            raise ValueError("file: found null, allowed with rule: file: a list inside data.folder.path")
        if self.rule == "random":
            if self.fold is not None:
                raise ValueError(f"fold: found {self.fold}, allowed with rule: random: null (vary seed)")
            if self.seed >= 2**32:
                raise ValueError(f"seed: found {self.seed}, allowed with rule: random: below 2**32")
        if self.fold is not None and self.fold >= self.folds and self.rule not in LISTED:
            raise ValueError(f"fold is {self.fold}, allowed: 0 to {self.folds - 1}")
        return self
