"""Inputs of a layer beside the hidden states: rotary position embeddings and, of a decoder's, a causal mask."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

INPUTS = ("attention_mask", "position_embeddings", "position_ids", "cache_position")
ENCODER_INPUTS = ("attention_mask", "position_embeddings")


@dataclass(frozen=True)
class LayerSpec:
    """The spec of a layer's inputs: layers of equal specs can share them."""

    inputs: frozenset[str]  # of INPUTS
    layer_type: str | None  # where the rotary embedding's frequencies depend on the type of the layer
    window: int | None  # sliding window: the tokens that a token attends to, itself included; None: all before it
    rotates: bool = True  # False where the layer uses no rotary positions, even if the LLM passes them to it
    encoder: bool = False  # of a vision transformer: it attends to all tokens, and its positions are of a grid

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "LayerSpec":
        """A spec from the values of `plain`. Raises KeyError or TypeError for other values."""
        inputs, encoder = frozenset(values["inputs"]), values.get("encoder", False)
        return cls(inputs, values["layer_type"], values["window"], values["rotates"], encoder)

    def plain(self) -> dict[str, Any]:
        """The spec as JSON values; of a decoder's layer as before there were encoders: its store stays the same."""
        values = {
            "inputs": sorted(self.inputs),
            "layer_type": self.layer_type,
            "window": self.window,
            "rotates": self.rotates,
        }
        return values | {"encoder": True} if self.encoder else values

    @property
    def rotary_options(self) -> dict[str, str]:
        """Arguments of the LLM's rotary embedding beside hidden states and positions."""
        return {} if self.layer_type is None else {"layer_type": self.layer_type}


def layer_spec(rotary: nn.Module, config: Any, layer: int, inputs: frozenset[str]) -> LayerSpec:
    """The spec of a layer by the LLM's config."""
    layer_type = config.layer_types[layer] if getattr(config, "layer_types", None) else None
    by_type = "layer_type" in inspect.signature(rotary.forward).parameters
    window = getattr(config, "sliding_window", None) if layer_type in (None, "sliding_attention") else None
    return LayerSpec(inputs, layer_type if by_type else None, window)


def causal_mask(tokens: int, window: int | None, like: Tensor) -> Tensor:
    """The additive causal mask (1, 1, T, T): 0 where a token may attend, minus infinity elsewhere."""
    blocked = like.new_full((tokens, tokens), float("-inf"))
    mask = blocked.triu(diagonal=1)
    if window is not None and window < tokens:
        mask += blocked.tril_(diagonal=-window)
    return mask[None, None]
