"""The LLM block: feature map to tokens, adapter, one decoder layer of an LLM, adapter, and back to a feature map."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.errors import InputError
from llm4seg.llm.architecture import check_tensors, pretrained_layer, random_layer, rotary_embedding, skeleton
from llm4seg.llm.store import LayerStore
from llm4seg.sections import Block

Position = tuple[Tensor, Tensor]  # the cosines and sines that rotate queries and keys, each (1, T, rotated)


def attention_mask(tokens: int, attention: str, like: Tensor) -> Tensor:
    """What is added to the attention scores, (1, 1, T, T): 0 where a token may look, minus infinity elsewhere.

    Always given explicitly: without a mask transformers' `sdpa` is causal and its `eager` attention is not.
    """
    mask = like.new_zeros(1, 1, tokens, tokens)
    return mask.fill_(float("-inf")).triu(diagonal=1) if attention == "causal" else mask


def change_position(native: Position, position: str) -> Position:
    """The rotation that `model.llm.position` asks for, from the LLM's own.

    `paper`: as in the released code, which hands over (sin p, cos p) of the raster index p in the place of (cos, sin):
    relative attention with a single frequency of -1 rad a token. `none`: no rotation.
    """
    cos, sin = native
    match position:
        case "paper":
            index = torch.arange(cos.shape[1], device=cos.device)[None, :, None].expand_as(cos)
            return index.sin().to(cos), index.cos().to(cos)
        case "none":
            return torch.ones_like(cos), torch.zeros_like(sin)
        case _:
            return native


class LLMBlock(nn.Module):
    """One LLM decoder layer between two linear adapters, over a feature map's positions in raster order.

    Frozen means: no gradients for the layer's weights (they pass through it), and evaluation mode always.
    """

    def __init__(self, section: Block, store: LayerStore, channels: int) -> None:
        """Draws the adapters and, for `weights: random`, the layer from torch's generator, in this order."""
        super().__init__()
        self._section = section
        llm = skeleton(store.config)
        self.adapter_in = nn.Linear(channels, llm.config.hidden_size)
        self.adapter_out = nn.Linear(llm.config.hidden_size, channels)
        self.layer = _decoder_layer(llm, section, store)
        self.rotary = rotary_embedding(llm)
        self._rotary_options = _rotary_options(self.rotary, llm.config, section.layer)
        self.layer.requires_grad_(not self.frozen)

    @property
    def frozen(self) -> bool:
        return self._section.training == "frozen"

    @property
    def layer_is_in_store(self) -> bool:
        """Whether the layer store can always give the layer's weights back."""
        return self.frozen and self._section.weights == "pretrained"

    def train(self, mode: bool = True) -> "LLMBlock":
        super().train(mode)
        self.layer.train(mode and not self.frozen)
        return self

    def forward(self, features_NCS: Tensor) -> Tensor:
        tokens_NTC = features_NCS.flatten(2).transpose(1, 2)
        hidden_NTD = self._decode(self.adapter_in(tokens_NTC))
        return self.adapter_out(hidden_NTD).transpose(1, 2).unflatten(2, features_NCS.shape[2:])

    def _decode(self, hidden_NTD: Tensor) -> Tensor:
        tokens = hidden_NTD.shape[1]
        index = torch.arange(tokens, device=hidden_NTD.device)[None]
        native = self.rotary(hidden_NTD, index, **self._rotary_options)
        out = self.layer(
            hidden_NTD,
            attention_mask=attention_mask(tokens, self._section.attention, hidden_NTD),
            position_ids=index,
            position_embeddings=change_position(native, self._section.position),
        )
        return out[0] if isinstance(out, tuple) else out  # transformers: some architectures return a tuple


def _decoder_layer(llm: Any, section: Block, store: LayerStore) -> nn.Module:
    if section.layer >= len(llm.layers):
        raise InputError(
            f"model.llm.layer: found {section.layer}, allowed: 0 to {len(llm.layers) - 1} ({store.source})"
        )
    if section.weights == "random":
        return random_layer(llm, section.layer)
    tensors = store.load(section.layer)
    check_tensors(llm.layers[section.layer], tensors, str(store.path(section.layer)))
    return pretrained_layer(llm, section.layer, tensors)


def _rotary_options(rotary: nn.Module, config: Any, layer: int) -> dict[str, str]:
    """Some LLMs rotate by another spectrum in some layers, and want to be told which kind of layer asks."""
    return (
        {"layer_type": config.layer_types[layer]}
        if "layer_type" in inspect.signature(rotary.forward).parameters
        else {}
    )
