"""Sections `llm` and `data`: the LLM's source, and the images."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PlainValidator,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llm4seg.config.earlier import moved
from llm4seg.config.schema.base import SECTIONS_ALONE, SHA256, Section
from llm4seg.config.schema.folder import FolderData

PICTURES = ("busi", "cvc-clinicdb", "isic", "kvasir-seg", "tn3k", "tnscui")  # datasets in 2-D alone
COLOR_PATTERN = "#[0-9a-f]{6}"
MOST_VALUE, MOST_CLASSES = 2**31 - 1, 255  # labels are uint8
BACKGROUND = "background"  # of data.classes: no class, but the values of what is none
COLOR, GRAY = 1 << 32, 0x010101  # a color's code is larger than every gray value; gray n is n * GRAY


def _class_value(value: Any) -> int | str:
    if isinstance(value, str) and value:
        return value.lower() if value.startswith("#") else value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_VALUE:
        return value
    raise ValueError(f'must be a whole number from 0 to {MOST_VALUE}, a color as "#rrggbb", or a class of the dataset')


Classes = Annotated[dict[str, tuple[Annotated[int | str, PlainValidator(_class_value)], ...]], Field(min_length=1)]


class LLM(Section):
    """The source of the pre-trained LLM, and the layers that the store keeps beside those in use."""

    source: str
    sha256: SHA256 | None
    layer_sha256: dict[NonNegativeInt, SHA256]
    layers: tuple[NonNegativeInt, ...]
    whole_files: bool


def mask_codes(value: int | str) -> tuple[int, ...]:
    """What stands for a listed mask value in a table of labels: a gray value is a color, too."""
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
    """The dataset, the size of the network's input, and the normalization of intensities.

    `classes`: of the dataset `folder` the mask values of each, gray or colors ("#rrggbb"); 0, black, is background, and
    so are the values listed under `background`; then 0 may be a class's. Of the others: names of their own classes.
    """

    dataset: Literal[
        "brain-mri",
        "lung-ct",
        "phantom",
        "folder",
        "acdc",
        "btcv",
        "busi",
        "cvc-clinicdb",
        "decathlon",
        "isic",
        "kvasir-seg",
        "nnunet",
        "tn3k",
        "tnscui",
    ]
    root: Path
    classes: Classes | None
    spatial_dims: Literal[2, 3]
    size: tuple[PositiveInt, ...]
    intensity: Literal["zscore", "window", "unit", "released"]
    window: tuple[float, float]
    paired: tuple[tuple[str, str], ...]
    folder: FolderData
    phantom: PhantomData

    @model_validator(mode="before")
    @classmethod
    def _in_place(cls, values: Any) -> Any:
        return moved(values, "data.")

    @field_validator("classes")
    @classmethod
    def _each_value_means_one_class(cls, classes: Classes | None, info: ValidationInfo) -> Classes | None:
        if classes and set(classes) == {BACKGROUND}:
            raise ValueError(f"found {BACKGROUND} alone, allowed: a class beside it")
        if classes and len(classes) > MOST_CLASSES:
            raise ValueError(f"found {len(classes)} classes, allowed: {MOST_CLASSES} at most")
        if classes and info.data.get("dataset") == "folder":
            _check_mask_values(classes)
        return classes

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        names = [name for pair in self.paired for name in pair]
        if len(set(names)) < len(names):
            raise ValueError(f"paired: found {[list(pair) for pair in self.paired]}, allowed: each class once")
        if info.context != SECTIONS_ALONE and len(self.size) != self.spatial_dims:
            raise ValueError(f"size has {len(self.size)} numbers, spatial_dims is {self.spatial_dims}")
        if info.context != SECTIONS_ALONE and self.dataset in PICTURES and self.spatial_dims != 2:
            raise ValueError(f"spatial_dims: found {self.spatial_dims}, allowed with dataset: {self.dataset}: 2")
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window must rise, found {list(self.window)}")
        return self


def _check_mask_values(classes: Classes) -> None:
    seen: set[int] = set()
    for name, values in classes.items():
        for value in values:
            if isinstance(value, str) and not re.fullmatch(COLOR_PATTERN, value):
                raise ValueError(f'found {value!r} for {name}, allowed for a folder: gray values and colors, "#rrggbb"')
            codes = mask_codes(value)
            if seen.intersection(codes):
                raise ValueError(f"mask values [{value}] are listed under two classes; each must mean one")
            seen.update(codes)
            if 0 in codes and name != BACKGROUND and not classes.get(BACKGROUND):
                raise ValueError(f"found {value} for {name}, allowed: greater than 0, which is {BACKGROUND}")
