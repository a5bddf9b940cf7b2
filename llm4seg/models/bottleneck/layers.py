"""The LLM layers of the block: one or several, of a decoder or a vision encoder, with the positions and masks of
`model.llm`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llm4seg.config.schema import Block
from llm4seg.llm.architecture import (
    check_tensors,
    final_norm,
    initialized,
    layer_list,
    loaded,
    meta_model,
    rotary_embedding,
    shuffled,
)
from llm4seg.llm.encoder import PatchRotation, is_encoder
from llm4seg.llm.layer_inputs import LayerSpec
from llm4seg.llm.store import LayerStore, tensors_sha256
from llm4seg.models.bottleneck.inputs import InputCache, Inputs
from llm4seg.models.bottleneck.lora import add_lora
from llm4seg.models.bottleneck.position import attend_both_ways, attention_mask, grid_rotation, rotation
from llm4seg.models.bottleneck.quantized import quantize
from llm4seg.utils.errors import InputError


class LLMLayers(nn.Module):
    """Layers of an LLM one after the other over the tokens of a grid, then the LLM's final norm if wanted.

    The "LLM" may be a vision transformer, whose layers attend to all tokens (see `llm.encoder`).
    Frozen layers get no gradients for their weights, only for their inputs, and stay in evaluation mode.
    Random and shuffled weights come from `seed` alone, not from torch's generator.
    """

    def __init__(self, section: Block, store: LayerStore, seed: int) -> None:
        super().__init__()
        self._section = section
        llm = meta_model(store.config)
        self._specs = [store.spec(layer) for layer in section.layer]
        self._check_position(llm.config.model_type, store.source)
        if is_encoder(llm):
            self._check_encoder(llm.config.model_type, store.source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(_layer(llm, layer, section, store) for layer in section.layer)
            self.norm = _norm(llm, section, store) if section.norm else nn.Identity()
        self.random_sha256 = self._random_sha256()
        self.requires_grad_(section.training == "full")
        if section.training == "lora":
            add_lora(self.layers, section.lora)
        quantize(self, section.dtype)
        self.rotary = None if is_encoder(llm) else rotary_embedding(llm)
        self._patch_rotation = PatchRotation.of(llm.config) if is_encoder(llm) else None
        self._needs_mask = section.attention == "causal" or not attend_both_ways(self.layers)
        self._cache = InputCache()

    def _check_position(self, model_type: str, source: str) -> None:
        """Refuse other positions than the LLM's own where no layer uses positions: they would change nothing."""
        position, layers = self._section.position, ", ".join(map(str, self._section.layer))
        if position in ("axial", "released") and not any(spec.rotates for spec in self._specs):
            raise InputError(
                f"model.llm.position: found {position}, allowed: native or none, since a {model_type} rotates nothing "
                f"in layer {layers} ({source})"
            )

    def _check_encoder(self, model_type: str, source: str) -> None:
        """Refuse what is defined for decoders alone. Positions that a layer does not use are refused before."""
        if self._section.attention == "causal":
            raise InputError(
                f"model.llm.attention: found causal, allowed: bidirectional, since a {model_type} is an encoder, whose "
                f"layers attend to all tokens ({source})"
            )
        if (position := self._section.position) in ("axial", "released"):
            raise InputError(
                f"model.llm.position: found {position}, allowed: native or none, since a {model_type} rotates by rows "
                f"and columns of its own ({source})"
            )

    def _random_sha256(self) -> dict[str, str]:
        """The sha256 of random weights that are in no file and no store, and are generated again at every load."""
        section = self._section
        if section.weights == "pretrained" or section.training == "full":
            return {}
        named = {f"layer {n}": module for n, module in zip(section.layer, self.layers, strict=True)}
        named |= {"the final norm": self.norm} if section.norm else {}
        return {name: tensors_sha256(module.state_dict()) for name, module in named.items()}

    def train(self, mode: bool = True) -> "LLMLayers":
        return super().train(mode and self._section.training != "frozen")

    def forward(self, tokens_NTE: Tensor, grid: Sequence[int]) -> Tensor:
        """Tokens (N, T, E) of a grid in raster order to tokens of equal shape and dtype."""
        hidden_NTE = tokens_NTE if self._section.dtype != "bf16" else tokens_NTE.bfloat16()
        key = tuple(grid), hidden_NTE.dtype, hidden_NTE.device
        inputs = self._cache.get(key, hidden_NTE, partial(self._inputs, hidden_NTE, grid))
        for layer, spec in zip(self.layers, self._specs, strict=True):
            hidden_NTE = self._through(layer, hidden_NTE, inputs[spec])
        out: Tensor = self.norm(hidden_NTE)
        return out.to(tokens_NTE.dtype)

    def _inputs(self, like: Tensor, grid: Sequence[int]) -> Inputs:
        """The inputs beside the hidden states, of the layers of each spec."""
        return {spec: self._inputs_of(spec, like, grid) for spec in set(self._specs)}

    def _inputs_of(self, spec: LayerSpec, like: Tensor, grid: Sequence[int]) -> dict[str, Any]:
        if spec.encoder:
            return self._encoder_inputs(spec, like, grid)
        assert self.rotary is not None
        rotary_at = partial(self.rotary, like, **spec.rotary_options)
        index = torch.arange(like.shape[1], device=like.device)
        # a mask of zeros keeps attention from a GPU's fast kernels; on the CPU it costs nothing, and keeps the bits
        masked = self._needs_mask or like.is_cpu
        attention = self._section.attention
        inputs = {
            "attention_mask": attention_mask(len(index), attention, spec.window, like) if masked else None,
            "position_embeddings": rotation(self._section.position, rotary_at, grid, like.device),
            "position_ids": index[None],
            "cache_position": index,
        }
        return {name: inputs[name] for name in spec.inputs}

    def _encoder_inputs(self, spec: LayerSpec, like: Tensor, grid: Sequence[int]) -> dict[str, Any]:
        """No mask, and rotary positions where the layer uses some."""
        inputs: dict[str, Any] = dict.fromkeys(spec.inputs)
        if spec.rotates:
            assert self._patch_rotation is not None
            inputs["position_embeddings"] = grid_rotation(self._section.position, self._patch_rotation, grid, like)
        return inputs

    def _through(self, layer: nn.Module, hidden_NTE: Tensor, inputs: dict[str, Any]) -> Tensor:
        if self._section.checkpointing and torch.is_grad_enabled():
            out = checkpoint(layer, hidden_NTE, use_reentrant=False, **inputs)
        else:
            out = layer(hidden_NTE, **inputs)
        return out[0] if isinstance(out, tuple) else out  # transformers: some architectures return a tuple


def _layer(llm: Any, layer: int, section: Block, store: LayerStore) -> nn.Module:
    module = layer_list(llm)[1][layer]
    if section.weights == "random":
        return initialized(llm, module)
    tensors = store.load(layer)
    check_tensors(module, tensors, str(store.path(layer)))
    return loaded(module, shuffled(tensors) if section.weights == "shuffled" else tensors)


def _norm(llm: Any, section: Block, store: LayerStore) -> nn.Module:
    _, module = final_norm(llm)
    if section.weights == "random":
        return initialized(llm, module)
    tensors = store.load_norm()
    check_tensors(module, tensors, str(store.norm_path))
    return loaded(module, shuffled(tensors) if section.weights == "shuffled" else tensors)
