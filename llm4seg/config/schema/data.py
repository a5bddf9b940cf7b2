"""Sections `llm` and `data`: the LLM's source, and the images."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PlainValidator,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llm4seg.config.earlier import moved
from llm4seg.config.schema.base import DEFAULT_LLM, SECTIONS_ALONE, SHA256, LLMName, Section
from llm4seg.config.schema.folder import FolderData

PICTURES = ("busi", "cvc-clinicdb", "isic", "kvasir-seg", "tn3k", "tnscui")  # datasets in 2-D alone
COLOR_PATTERN = "#[0-9a-f]{6}"
MOST_VALUE, MOST_CLASSES = 2**31 - 1, 254  # labels are uint8, of which 255 is what is ignored
# of data.classes: no classes, but the values of what is none, and of what counts nowhere
BACKGROUND, IGNORED = "background", "ignore"
COLOR, GRAY = 1 << 32, 0x010101  # a color's code is larger than every gray value; gray n is n * GRAY


def class_names(classes: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes but for background and what is ignored."""
    return tuple(name for name in classes if name not in (BACKGROUND, IGNORED))


def _class_value(value: Any) -> int | str:
    if isinstance(value, str) and value:
        return value.lower() if value.startswith("#") else value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_VALUE:
        return value
    raise ValueError(f'must be a whole number from 0 to {MOST_VALUE}, a color as "#rrggbb", or a class of the dataset')


def _spacing(value: Any) -> str | tuple[float, ...]:
    if value == "auto":
        return "auto"
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) == 3 and all(isinstance(one, int | float) and 0 < one < math.inf for one in numbers):
        return tuple(float(one) for one in numbers)
    raise ValueError("must be auto, or three numbers greater than 0, in mm: to the right, to the back, to the head")


ClassValue = Annotated[int | str, PlainValidator(_class_value)]
Spacing = Annotated[Literal["auto"] | tuple[float, ...], BeforeValidator(_spacing)]
Classes = Annotated[dict[str, tuple[ClassValue, ...]], Field(min_length=1)]


class LLMSource(Section):
    """The source of a pre-trained LLM, and the layers that the store keeps beside those in use."""

    source: str
    sha256: SHA256 | None
    layer_sha256: dict[NonNegativeInt, SHA256]
    layers: tuple[NonNegativeInt, ...]
    whole_files: bool


# what another LLM is where `llm.sources` says its address alone
UNSAID: dict[str, Any] = {"sha256": None, "layer_sha256": {}, "layers": [], "whole_files": False}


def _spelled_out(value: Any) -> Any:
    """The full form of another LLM: an address alone is its source; what is not said is as in `UNSAID`."""
    if isinstance(value, str):
        value = {"source": value}
    return UNSAID | value if isinstance(value, dict) else value


def _without_default(sources: dict[str, LLMSource]) -> dict[str, LLMSource]:
    if DEFAULT_LLM in sources:
        raise ValueError(f"the name {DEFAULT_LLM} is that of llm.source; allowed: other names")
    return sources


class LLM(LLMSource):
    """The LLM named `default`; `sources` are others by name, of which `model.llm.source` may choose one."""

    sources: Annotated[
        dict[LLMName, Annotated[LLMSource, BeforeValidator(_spelled_out)]], AfterValidator(_without_default)
    ]

    @property
    def named(self) -> dict[str, LLMSource]:
        """Every LLM by its name, `default` first."""
        return {DEFAULT_LLM: self, **self.sources}


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
    """The dataset, the grid that images are resampled to, and the normalization of intensities.

    `grid`: `resize`, every image to `size`; or `spacing`, each volume to a grid of its own shape at this `spacing`,
    cropped to what is no empty margin; the network sees patches of it (`training.patch`).
    `classes`: of the dataset `folder` the mask values of each, gray or colors ("#rrggbb"); 0, black, is background, and
    so are the values listed under `background`; then 0 may be a class's. Of the others: names of their own classes.
    What is listed under `ignore` counts nowhere. With `regions_class_order`, a value of each class in their order,
    classes are regions, which may overlap: see LabelScheme.
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
    regions_class_order: tuple[ClassValue, ...] | None
    spatial_dims: Literal[2, 3]
    grid: Literal["resize", "spacing"]
    size: tuple[PositiveInt, ...]
    spacing: Spacing
    intensity: Literal["zscore", "window", "unit", "released", "ct"]
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
        if classes and not class_names(classes):
            raise ValueError(f"found {' and '.join(classes)} alone, allowed: a class beside it")
        if classes and len(class_names(classes)) > MOST_CLASSES:
            raise ValueError(f"found {len(class_names(classes))} classes, allowed: {MOST_CLASSES} at most")
        if classes:
            _check_reserved(classes)
        if classes and info.data.get("dataset") == "folder":
            _check_mask_values(classes)
        return classes

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        check_regions(self.classes, self.regions_class_order)
        names = [name for pair in self.paired for name in pair]
        if len(set(names)) < len(names):
            raise ValueError(f"paired: found {[list(pair) for pair in self.paired]}, allowed: each class once")
        if info.context != SECTIONS_ALONE:
            self._check_grid()
        if info.context != SECTIONS_ALONE and self.dataset in PICTURES and self.spatial_dims != 2:
            raise ValueError(f"spatial_dims: found {self.spatial_dims}, allowed with dataset: {self.dataset}: 2")
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window must rise, found {list(self.window)}")
        return self

    def _check_grid(self) -> None:
        if self.grid == "resize" and len(self.size) != self.spatial_dims:
            raise ValueError(f"size has {len(self.size)} numbers, spatial_dims is {self.spatial_dims}")
        if self.grid == "spacing" and self.spatial_dims != 3:
            raise ValueError(f"grid: found spacing, allowed with spatial_dims: {self.spatial_dims}: resize")
        if self.intensity == {"resize": "ct", "spacing": "released"}[self.grid]:
            allowed = "ct" if self.grid == "spacing" else "released"
            raise ValueError(
                f"intensity: found {self.intensity}, allowed with grid: {self.grid}: zscore, window, unit or {allowed}"
            )


def _check_reserved(classes: Classes) -> None:
    """Raise ValueError for a value that is background's, or ignored, and anything else as well."""
    for reserved in (BACKGROUND, IGNORED):
        for value in classes.get(reserved, ()):
            if others := [name for name, values in classes.items() if name != reserved and value in values]:
                raise ValueError(f"found {value!r} under {reserved} and {others[0]}, allowed: under one of them")


def check_regions(classes: Classes | None, order: Sequence[int | str] | None) -> None:
    """Raise ValueError for classes that overlap without an order, and for an order that is not one of their values."""
    if order is None:
        class_of: dict[int | str, str] = {}
        for name in class_names(classes or {}):
            for value in (classes or {})[name]:
                if class_of.setdefault(value, name) != name:
                    raise ValueError(
                        f"classes: found {value!r} under {class_of[value]} and {name}, allowed: under one; for "
                        "regions, which overlap, set regions_class_order: a value of each, which is written for it"
                    )
        return
    if not classes:
        raise ValueError(f"regions_class_order: found {[*order]}, allowed without data.classes: null")
    names = class_names(classes)
    if len(order) != len(names) or any(value not in classes[name] for name, value in zip(names, order, strict=True)):
        raise ValueError(
            f"regions_class_order: found {[*order]}, allowed: a value of each of {', '.join(names)}, in this order"
        )


def _check_mask_values(classes: Classes) -> None:
    way: dict[int, int | str] = {}  # each code's value, which must be written in one way
    for name, values in classes.items():
        for value in values:
            if isinstance(value, str) and not re.fullmatch(COLOR_PATTERN, value):
                raise ValueError(f'found {value!r} for {name}, allowed for a folder: gray values and colors, "#rrggbb"')
            codes = mask_codes(value)
            for other in {way.setdefault(code, value) for code in codes} - {value}:
                raise ValueError(f"found both {other!r} and {value!r}, which are the same mask value")
            if 0 in codes and name != BACKGROUND and not classes.get(BACKGROUND):
                raise ValueError(f"found {value} for {name}, allowed: greater than 0, which is {BACKGROUND}")
