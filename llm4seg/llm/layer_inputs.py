"""What an LLM natively hands to each of its layers beside the hidden states: rotary positions and a causal mask."""

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

INPUTS = ("attention_mask", "position_embeddings", "position_ids", "cache_position")


@dataclass(frozen=True)
class LayerSpec:
    """What layers of one kind want to be handed: layers of equal kinds can share it."""

    inputs: frozenset[str]  # of INPUTS
    layer_type: str | None  # some LLMs rotate by another spectrum in some layers, and want to be told which
    window: int | None  # how many tokens a token sees, itself included, at most; None: all before it
    rotates: bool = True  # some LLMs hand positions to all of their layers, and make no use of them in some

    @property
    def rotary_options(self) -> dict[str, str]:
        """What the LLM's rotary embedding is to be called with, beside hidden states and positions."""
        return {} if self.layer_type is None else {"layer_type": self.layer_type}


def layer_spec(rotary: nn.Module, config: Any, layer: int, handed: frozenset[str]) -> LayerSpec:
    """The kind of a layer, as far as the LLM's config says it."""
    layer_type = config.layer_types[layer] if getattr(config, "layer_types", None) else None
    told = "layer_type" in inspect.signature(rotary.forward).parameters
    width = getattr(config, "sliding_window", None) if layer_type in (None, "sliding_attention") else None
    return LayerSpec(handed, layer_type if told else None, width)


def causal_mask(tokens: int, window: int | None, like: Tensor) -> Tensor:
    """What is added to the attention scores, (1, 1, T, T): 0 where a token may look, minus infinity elsewhere."""
    nowhere = like.new_full((tokens, tokens), float("-inf"))
    mask = nowhere.triu(diagonal=1)
    if window is not None and window < tokens:
        mask += nowhere.tril_(diagonal=-window)
    return mask[None, None]
