"""Section `model`: the backbone and the block in its bottleneck."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationInfo, model_validator

from llm4seg.config.schema.backbone_choice import Backbones
from llm4seg.config.schema.base import SECTIONS_ALONE, LLMName, Section, read_as

MOST_LAYERS = 1000  # of a range


def parse_layers(value: Any) -> Any:
    """One layer (14), a contiguous range with both ends ("3-5") or a list ([3, 7]) as a tuple of layer numbers."""
    if isinstance(value, str) and (ends := re.fullmatch(r"(\d+)-(\d+)", value)):
        first, last = int(ends[1]), int(ends[2])
        if not 0 <= last - first < MOST_LAYERS:
            raise ValueError(f"must rise, by less than {MOST_LAYERS}")
        return tuple(range(first, last + 1))
    if isinstance(value, bool) or (isinstance(value, list | tuple) and any(isinstance(one, bool) for one in value)):
        raise ValueError(
            "must be a layer's number, a range such as 3-5, or a list of numbers"
        )  # pydantic takes true for 1
    if isinstance(value, int | str):
        return (int(value) if str(value).isdigit() else value,)
    return value


Layers = Annotated[tuple[NonNegativeInt, ...], BeforeValidator(parse_layers), Field(min_length=1)]


class Adapter(Section):
    """The adapters: from the CNN's width to the LLM's, and back."""

    kind: Literal["linear", "bottleneck"]
    width: PositiveInt
    activation: Literal["gelu", "relu", "silu"]
    norm: bool


class LoRA(Section):
    """LoRA on every matrix of the LLM layers, scaled by alpha / rank."""

    rank: PositiveInt
    alpha: PositiveInt


class Block(Section):
    """The LLM block in the bottleneck."""

    source: LLMName
    layer: Layers
    norm: bool
    weights: Literal["pretrained", "random", "shuffled"]
    training: Literal["frozen", "full", "lora"]
    lora: LoRA
    adapter: Adapter
    residual: Literal["none", "plain", "gate"]
    position: Annotated[Literal["native", "axial", "released", "none"], read_as("model.llm.position")]
    attention: Literal["causal", "bidirectional"]
    pool: PositiveInt
    max_tokens: PositiveInt
    dtype: Literal["fp32", "bf16", "int8", "int4"]
    checkpointing: bool
    train_only: bool

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        if info.context == SECTIONS_ALONE:
            return self
        twice = sorted({layer for layer in self.layer if self.layer.count(layer) > 1})
        if twice and (self.weights, self.training) != ("pretrained", "frozen"):
            # one module in two places: both would train as one, and a random one would be initialized twice
            raise ValueError(
                f"layer: found {twice[0]} more than once, allowed: each once, since weights is {self.weights} and "
                f"training is {self.training}"
            )
        if self.dtype != "fp32" and self.training == "full":
            raise ValueError(f"dtype: found {self.dtype}, allowed: fp32, since training is full")
        if self.dtype in ("int8", "int4") and self.training != "frozen":
            raise ValueError(f"dtype: found {self.dtype}, allowed: fp32 or bf16, since training is {self.training}")
        return self


class Model(Backbones):
    """The hybrid: a CNN encoder-decoder and the module in its bottleneck."""

    bottleneck: Literal["identity", "llm", "mlp"]
    llm: Block
