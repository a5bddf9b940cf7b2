"""The types and limits of every section of params.yaml; the values are in params.yaml alone."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, lt=1)]
AtLeastTwo = Annotated[int, Field(ge=2)]
Overrides = dict[str, Any]  # dotted parameter: value


def _regular_expression(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    if groups != 1:
        raise ValueError("must be a regular expression with exactly one group")
    return pattern


Pattern = Annotated[str, AfterValidator(_regular_expression)]


class Section(BaseModel):
    """A section of params.yaml: nothing missing, nothing extra, nothing changed later."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Paths(Section):
    """Where the stages read and write; absolute once loaded."""

    llm: Path
    prepared: Path
    split: Path
    search: Path
    model: Path
    history: Path
    evaluation: Path
    metrics: Path
    report: Path
    cache: Path
    runs: Path


class LLM(Section):
    """Which pre-trained LLM, and which of its layers the store keeps beside the one in use."""

    source: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    layers: tuple[NonNegativeInt, ...]


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
    """Made-up images of made-up patients."""

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
    """Which images, and the grid the network sees them on."""

    dataset: Literal["brain-mri", "lung-ct", "phantom", "folder"]
    spatial_dims: Literal[2, 3]
    size: tuple[PositiveInt, ...]
    intensity: Literal["zscore", "window", "unit"]
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
    """How cases are shared out to train, val and test."""

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


class Block(Section):
    """The LLM block in the bottleneck."""

    layer: NonNegativeInt
    weights: Literal["pretrained", "random"]
    training: Literal["frozen", "full"]
    position: Literal["native", "paper", "none"]
    attention: Literal["causal", "bidirectional"]


class Model(Section):
    """The hybrid: a CNN encoder-decoder and what sits in its bottleneck."""

    backbone: Literal["cmunext"]
    dims: Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
    depths: tuple[PositiveInt, ...]
    kernels: tuple[PositiveInt, ...]
    bottleneck: Literal["identity", "llm"]
    llm: Block

    @property
    def stride(self) -> int:
        """How many input pixels one bottleneck token stands for, along each axis."""
        return int(2 ** (len(self.dims) - 1))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.dims) == len(self.depths) == len(self.kernels):
            raise ValueError("dims, depths and kernels must be equally long")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels must be odd, found {list(self.kernels)}")
        return self


class Optimizer(Section):
    """The optimizer, its schedule and gradient clipping."""

    name: Literal["adamw", "sgd"]
    lr: PositiveFloat
    weight_decay: NonNegativeFloat
    momentum: Fraction
    schedule: Literal["onecycle", "poly", "constant"]
    clip_norm: PositiveFloat | None


class Augment(Section):
    """Random changes to each training image; seeded by (seed, epoch, sample)."""

    flip: tuple[NonNegativeInt, ...]
    rotate: Annotated[float, Field(ge=0, le=180)]
    scale: Fraction
    shift: Fraction
    intensity: NonNegativeFloat


class Training(Section):
    """What `fit` does."""

    epochs: PositiveInt
    batch_size: PositiveInt
    loss: Literal["dice_ce", "paper"]
    select: Literal["best", "last"]
    seed: NonNegativeInt
    augment: Augment


class Engine(Section):
    """Who runs the optimizer step."""

    name: Literal["torch", "deepspeed"]
    zero: Literal[0, 1, 2, 3]
    offload: Literal["none", "cpu", "nvme"]
    accumulation: PositiveInt
    channels_last: bool

    @model_validator(mode="after")
    def _offload_needs_zero_3(self) -> Self:
        if self.offload != "none" and (self.name, self.zero) != ("deepspeed", 3):
            raise ValueError(f"offload: {self.offload} needs name: deepspeed and zero: 3")
        return self


class Cluster(Section):
    """Where a run happens, never what it computes."""

    address: str | None
    workers: PositiveInt
    device: Literal["auto", "cpu", "cuda"]
    cpus_per_worker: PositiveInt | None
    storage: str | None
    nvme: Path | None
    max_failures: NonNegativeInt


class Search(Section):
    """Ray Tune over dotted parameters."""

    trials: NonNegativeInt
    epochs: PositiveInt
    seed: NonNegativeInt
    space: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]


class Evaluation(Section):
    """How the test part is measured."""

    nsd_tolerance: PositiveFloat
    bootstrap: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    seed: NonNegativeInt


class Report(Section):
    """The HTML page."""

    title: str
