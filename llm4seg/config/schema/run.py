"""Sections on files, the engine, evaluation and report, and `cluster`: where a run happens."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from llm4seg.config.schema.base import Fraction, Section

UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]+")  # of a GPU or of a part of one
# a step of evaluation.postprocess: largest:CLASS, min:PIXELS, or min:PIXELS:CLASS
POSTPROCESS = re.compile(r"largest:(?P<one>.+)|min:(?P<size>[1-9][0-9]{0,11})(?::(?P<of>.+))?")


class Paths(Section):
    """Files and folders of the stages; absolute once loaded."""

    llm: Path
    llm_used: Path
    prepared: Path
    split: Path
    search: Path
    study: Path
    study_runs: Path
    model: Path
    history: Path
    evaluation: Path
    metrics: Path
    analysis: Path
    report: Path
    pictures: Path
    contact_sheet: Path
    cache: Path
    runs: Path
    tracking: Path


class EngineConfig(Section):
    """The training engine: plain torch or DeepSpeed, with ZeRO stage, offload and precision."""

    name: Literal["auto", "deepspeed", "torch"]
    zero: Literal[0, 1, 2, 3]
    offload: Literal["none", "cpu", "nvme", "auto"]
    accumulation: PositiveInt
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    channels_last: bool
    compile: bool
    deterministic: bool
    graph: Literal["auto", "off"]

    @model_validator(mode="after")
    def _offload_needs_zero_3(self) -> Self:
        if self.offload != "none" and (self.name == "torch" or self.zero != 3):
            raise ValueError(f"offload: {self.offload} needs name: auto or deepspeed, and zero: 3")
        return self

    @model_validator(mode="after")
    def _fp16_needs_torch(self) -> Self:
        if self.precision == "fp16" and (self.name == "deepspeed" or (self.name == "auto" and self.zero == 3)):
            raise ValueError(
                f"precision: found fp16, allowed with name: {self.name} and zero: {self.zero}: fp32, tf32, bf16; only "
                "name: torch scales losses"
            )
        return self

    def resolve(self, workers: int) -> Self:
        """A copy with `name: auto` replaced by the engine that runs on this number of workers.

        `auto` is DeepSpeed where ZeRO has a use: several workers to partition over, or the offload that only stage 3
        has. Everywhere else plain torch computes the same without DeepSpeed's overhead, and fp16 as well.
        """
        if self.name != "auto":
            return self
        partitions = self.zero > 0 and workers > 1 and self.precision != "fp16"
        name = "deepspeed" if self.zero == 3 or partitions else "torch"
        return self.model_copy(update={"name": name})


def _both_ends(value: Any) -> Any:
    """A number of workers as a range."""
    return (value, value) if isinstance(value, int) else value


class Tracking(Section):
    """Who is told of a training while it runs, and every how many epochs with pictures (0: none); computes nothing."""

    to: Literal["none", "dvclive", "tensorboard", "mlflow", "wandb"]
    pictures: NonNegativeInt


def _gpus(value: Any) -> Any:
    """A list of GPUs as CUDA_VISIBLE_DEVICES names them: by index, or by UUID or the beginning of that."""
    if value is None:
        return None
    named = isinstance(value, list | tuple) and all(
        one >= 0 if type(one) is int else isinstance(one, str) and UUID.fullmatch(one) for one in value
    )
    if not named or not value or len(set(value)) < len(value):
        raise ValueError("allowed: null, or a list of indices as nvidia-smi counts them or of UUIDs, each once")
    return value


class Cluster(Section):
    """Where a run happens, never what it computes."""

    launcher: Literal["ray", "process"]
    address: str | None
    workers: Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_both_ends)]  # fewest and most
    resize_interval: PositiveFloat
    device: Literal["auto", "cpu", "cuda"]
    cpus_per_worker: PositiveInt | None
    gpus_per_worker: Annotated[float, Field(gt=0, le=1)]
    gpus: Annotated[tuple[int | str, ...] | None, BeforeValidator(_gpus)]
    trials: PositiveInt
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
    storage: str | None
    data: Literal["shared", "pull"]
    node_cache: Path
    nvme: Path | None
    checkpoint_minutes: PositiveFloat | None
    keep: PositiveInt
    storage_patience: NonNegativeFloat
    timeout: PositiveFloat | None
    max_failures: NonNegativeInt

    @model_validator(mode="after")
    def _no_credentials(self) -> Self:
        if self.storage and "@" in self.storage.partition("://")[2].partition("/")[0]:
            raise ValueError("storage: found credentials, allowed: s3://bucket/prefix; set AWS_ACCESS_KEY_ID instead")
        return self

    @model_validator(mode="after")
    def _workers_of_one_run_share_no_gpu(self) -> Self:
        if self.gpus_per_worker < 1 and self.most > 1:
            raise ValueError(f"gpus_per_worker: found {self.gpus_per_worker:g}, allowed: 1, since workers are several")
        return self

    @model_validator(mode="after")
    def _gpus_are_of_this_machine(self) -> Self:
        if self.gpus is not None and self.address is not None:
            raise ValueError(f"gpus: found {[*self.gpus]}, allowed: null, since address names a cluster")
        return self

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        if self.fewest > self.most:
            raise ValueError(f"workers must rise, found {list(self.workers)}")
        return self

    @model_validator(mode="after")
    def _nodes_that_pull_share_nothing(self) -> Self:
        if self.data == "pull" and self.storage is None:
            raise ValueError("storage: found null, allowed: s3://bucket/prefix, since data is pull")
        if self.data == "pull" and not self.node_cache.expanduser().is_absolute():
            raise ValueError(f"node_cache: found {self.node_cache}, allowed: an absolute path, or one from ~")
        return self

    @property
    def fewest(self) -> int:
        """The number of workers without which a run does not start."""
        return self.workers[0]

    @property
    def most(self) -> int:
        """The number of workers of a run where the cluster has room for them."""
        return self.workers[1]


def _step(value: str) -> str:
    if POSTPROCESS.fullmatch(value) is None:
        raise ValueError("allowed: largest:CLASS, min:PIXELS and min:PIXELS:CLASS")
    return value


class Evaluation(Section):
    """The evaluation: the models, how they predict, tolerance of NSD, and bootstrap intervals."""

    models: Annotated[tuple[Path, ...], Field(min_length=1)] | None
    overlap: Fraction
    tta: tuple[NonNegativeInt, ...]
    postprocess: tuple[Annotated[str, AfterValidator(_step)], ...]
    nsd_tolerance: PositiveFloat
    bootstrap: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    seed: NonNegativeInt

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("models", "tta"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: found {[*map(str, values)]}, allowed: each once")
        return self


class Analysis(Section):
    """The analysis of features: which images and classes, how maps are made and compared, how much is measured."""

    enabled: bool
    part: Literal["test", "val"]
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None
    activation: Literal["magnitude", "norm", "frequency"]
    at: Literal["tokens", "image"]
    shifts: PositiveInt
    probe_cases: NonNegativeInt
    field_cases: NonNegativeInt

    @model_validator(mode="after")
    def _each_class_once(self) -> Self:
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: found {[*self.classes]}, allowed: each once")
        return self


class Report(Section):
    """The HTML page."""

    title: str
