"""What an LLM gives to each of its layers beside the hidden states: rotary positions and a causal mask."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

INPUTS = ("attention_mask", "position_embeddings", "position_ids", "cache_position")


@dataclass(frozen=True)
class LayerSpec:
    """The inputs that a layer needs: layers of equal specs can share them."""

    inputs: frozenset[str]  # of INPUTS
    layer_type: str | None  # some LLMs rotate by another spectrum in some layers, and need to know which
    window: int | None  # how many tokens a token sees, itself included, at most; None: all before it
    rotates: bool = True  # some LLMs give positions to all of their layers, and make no use of them in some

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "LayerSpec":
        """What `plain` returned. Raises KeyError and TypeError for anything else."""
        return cls(frozenset(values["inputs"]), values["layer_type"], values["window"], values["rotates"])

    def plain(self) -> dict[str, Any]:
        """The spec as JSON holds it."""
        return {
            "inputs": sorted(self.inputs),
            "layer_type": self.layer_type,
            "window": self.window,
            "rotates": self.rotates,
        }

    @property
    def rotary_options(self) -> dict[str, str]:
        """Arguments of the LLM's rotary embedding beside hidden states and positions."""
        return {} if self.layer_type is None else {"layer_type": self.layer_type}


def layer_spec(rotary: nn.Module, config: Any, layer: int, inputs: frozenset[str]) -> LayerSpec:
    """The spec of a layer, as far as the LLM's config says it."""
    layer_type = config.layer_types[layer] if getattr(config, "layer_types", None) else None
    by_type = "layer_type" in inspect.signature(rotary.forward).parameters
    window = getattr(config, "sliding_window", None) if layer_type in (None, "sliding_attention") else None
    return LayerSpec(inputs, layer_type if by_type else None, window)


def causal_mask(tokens: int, window: int | None, like: Tensor) -> Tensor:
    """What is added to the attention scores, (1, 1, T, T): 0 where a token may look, minus infinity elsewhere."""
    nowhere = like.new_full((tokens, tokens), float("-inf"))
    mask = nowhere.triu(diagonal=1)
    if window is not None and window < tokens:
        mask += nowhere.tril_(diagonal=-window)
    return mask[None, None]
