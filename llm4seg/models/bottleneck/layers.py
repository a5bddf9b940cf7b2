"""The LLM's own part of the block: one decoder layer or several, made as `model.llm` says, with positions and masks."""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llm4seg.errors import InputError
from llm4seg.llm.architecture import (
    check_tensors,
    final_norm,
    initialised,
    loaded,
    rotary_embedding,
    shuffled,
    skeleton,
)
from llm4seg.llm.store import LayerStore
from llm4seg.models.bottleneck.lora import add_lora
from llm4seg.models.bottleneck.position import Rotation, attention_mask, rotation
from llm4seg.models.bottleneck.quantised import quantise
from llm4seg.sections import Block


class LLMLayers(nn.Module):
    """Decoder layers of an LLM one after the other over the tokens of a grid, then the LLM's final norm if wanted.

    Frozen means: no gradients for the layers' weights (they pass through them), and evaluation mode always.
    Random and shuffled weights are drawn from `seed` alone, not from torch's generator.
    """

    def __init__(self, section: Block, store: LayerStore, seed: int) -> None:
        super().__init__()
        self._section = section
        llm = skeleton(store.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(_decoder_layer(llm, layer, section, store) for layer in section.layer)
            self.norm = _norm(llm, section, store) if section.norm else nn.Identity()
        self.requires_grad_(section.training == "full")
        if section.training == "lora":
            add_lora(self.layers, section.lora)
        quantise(self, section.dtype)
        self.rotary = rotary_embedding(llm)
        self._rotary_options = [_rotary_options(self.rotary, llm.config, layer) for layer in section.layer]

    def train(self, mode: bool = True) -> "LLMLayers":
        return super().train(mode and self._section.training != "frozen")

    def forward(self, tokens_NTD: Tensor, grid: Sequence[int]) -> Tensor:
        """Tokens (N, T, D) of a grid in raster order to tokens of equal shape and dtype."""
        hidden_NTD = tokens_NTD if self._section.dtype != "bf16" else tokens_NTD.bfloat16()
        tokens = hidden_NTD.shape[1]
        shared = {
            "attention_mask": attention_mask(tokens, self._section.attention, hidden_NTD),
            "position_ids": torch.arange(tokens, device=hidden_NTD.device)[None],
        }
        for layer, rotated in zip(self.layers, self._rotations(hidden_NTD, grid), strict=True):
            hidden_NTD = self._through(layer, hidden_NTD, {**shared, "position_embeddings": rotated})
        out: Tensor = self.norm(hidden_NTD)
        return out.to(tokens_NTD.dtype)

    def _rotations(self, like: Tensor, grid: Sequence[int]) -> list[Rotation]:
        """The rotation of each layer; layers of one kind share one."""
        kinds = [tuple(options.items()) for options in self._rotary_options]
        made = {
            kind: rotation(self._section.position, partial(self.rotary, like, **dict(kind)), grid, like.device)
            for kind in set(kinds)
        }
        return [made[kind] for kind in kinds]

    def _through(self, layer: nn.Module, hidden_NTD: Tensor, about: dict[str, Any]) -> Tensor:
        if self._section.checkpointing and torch.is_grad_enabled():
            out = checkpoint(layer, hidden_NTD, use_reentrant=False, **about)
        else:
            out = layer(hidden_NTD, **about)
        return out[0] if isinstance(out, tuple) else out  # transformers: some architectures return a tuple


def _decoder_layer(llm: Any, layer: int, section: Block, store: LayerStore) -> nn.Module:
    if layer >= len(llm.layers):
        raise InputError(f"model.llm.layer: found {layer}, allowed: 0 to {len(llm.layers) - 1} ({store.source})")
    module: nn.Module = llm.layers[layer]
    if section.weights == "random":
        return initialised(llm, module)
    tensors = store.load(layer)
    check_tensors(module, tensors, str(store.path(layer)))
    return loaded(module, shuffled(tensors) if section.weights == "shuffled" else tensors)


def _norm(llm: Any, section: Block, store: LayerStore) -> nn.Module:
    _, module = final_norm(llm)
    if section.weights == "random":
        return initialised(llm, module)
    tensors = store.load_norm()
    check_tensors(module, tensors, str(store.norm_path))
    return loaded(module, shuffled(tensors) if section.weights == "shuffled" else tensors)


def _rotary_options(rotary: nn.Module, config: Any, layer: int) -> dict[str, str]:
    """Some LLMs rotate by another spectrum in some layers, and want to be told which kind of layer asks."""
    return (
        {"layer_type": config.layer_types[layer]}
        if "layer_type" in inspect.signature(rotary.forward).parameters
        else {}
    )
