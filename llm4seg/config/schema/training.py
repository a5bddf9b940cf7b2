"""Sections `optimizer` and `training`."""

from math import isclose
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from llm4seg.config.schema.base import SHA256, Fraction, Probability, Section, read_as

SQUARE = 0.01  # how far the sides of a square pixel may differ, relative to them


class OptimizerConfig(Section):
    """The optimizer, its schedule and gradient clipping."""

    name: Literal["adamw", "sgd"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    momentum: Fraction
    nesterov: bool
    schedule: Literal["onecycle", "poly", "constant"]
    clip_norm: PositiveFloat | None

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov: found true, allowed with momentum: 0: false")
        return self


class Augment(Section):
    """Random augmentation of each training image, seeded by (seed, epoch, sample)."""

    flip: tuple[NonNegativeInt, ...]
    quarter_turns: bool
    rotate: Annotated[float, Field(ge=0, le=180)]
    scale: Fraction
    shift: Fraction
    intensity: NonNegativeFloat
    color: Fraction
    elastic: NonNegativeFloat
    noise: NonNegativeFloat
    blur: NonNegativeFloat
    contrast: Fraction
    low_resolution: Fraction
    gamma: NonNegativeFloat
    gamma_inverted: NonNegativeFloat

    def check_pixels(self, rows: float, columns: float) -> None:
        """Raise ValueError for quarter turns where rows are not as far apart as columns (in mm): they would stretch."""
        if self.quarter_turns and not isclose(rows, columns, rel_tol=SQUARE):
            raise ValueError(
                "training.augment.quarter_turns: found true, allowed: false, as data.spacing is "
                f"{columns:g} x {rows:g} mm to the right and to the back"
            )


class LabelNoise(Section):
    """Label noise: random errors in the training masks, seeded by (seed, case)."""

    boundary: NonNegativeInt
    drop: Probability
    flip: Probability


def _sides(value: Any) -> Any:
    """Sides of a patch as given; one message for whatever else there is that is no list of three numbers."""
    if value == "auto" or (isinstance(value, list | tuple) and len(value) == 3):
        return value
    raise ValueError("allowed: auto, or three whole numbers greater than 0: rows, columns, slices")


class Patch(Section):
    """The patches of volumes that the network sees: their size (rows, columns, slices), and how they are drawn.

    `auto`: a size for the prepared volumes, see `data.patch_size`.
    """

    size: Annotated[Literal["auto"] | tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_sides)]
    per_case: PositiveInt
    foreground: Literal["voxel", "class", "none"]
    share: Probability


def _weights(value: Any) -> Any:
    """Class weights as given; one message for whatever else there is."""
    listed = isinstance(value, list | tuple) and len(value) > 1
    if value in (None, "auto") or (listed and all(_is_weight(one) for one in value)):
        return value
    raise ValueError("allowed: null, auto, or a list of numbers above 0, the background's first")


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


class TverskyConfig(Section):
    """The weights of false positive (alpha) and false negative pixels (beta) in the Tversky index."""

    alpha: PositiveFloat
    beta: PositiveFloat


class Training(Section):
    """The training: its length, batch size, loss, seed, augmentation, data and initial weights."""

    epochs: PositiveInt
    batch_size: PositiveInt
    loss: Annotated[Literal["dice_ce", "bce_dice", "dice_focal", "tversky_ce"], read_as("training.loss")]
    focal_gamma: NonNegativeFloat
    tversky: TverskyConfig
    class_weights: Annotated[Literal["auto"] | tuple[PositiveFloat, ...] | None, BeforeValidator(_weights)]
    deep_supervision: bool
    select: Literal["best", "last"]
    patience: PositiveInt | None
    validate_every: PositiveInt
    patch: Patch
    seed: NonNegativeInt
    augment: Augment
    fraction: Annotated[float, Field(gt=0, le=1)]
    label_noise: LabelNoise
    init_from: Path | None
    init_sha256: SHA256 | None
