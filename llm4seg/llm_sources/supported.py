"""Check that an LLM's layers can run alone: that the complete model passes them the inputs that this project does.

No list of families: transformers' own forward pass of the complete model runs, without weights.
"""

import copy
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.llm.architecture import rotary_embedding, unsupported
from llm4seg.llm.encoder import is_encoder
from llm4seg.llm.layer_inputs import INPUTS, LayerSpec, causal_mask, layer_spec
from llm4seg.llm.transformers_internals import set_attention
from llm4seg.llm_sources.forward_pass import Call, Uses, is_plain, layer_call, unsaved_buffers
from llm4seg.llm_sources.supported_encoders import encoder_spec, runnable_encoder
from llm4seg.utils.errors import InputError

TOKENS, WINDOW = 7, 3  # enough tokens for a window to show
WINDOWS = ("sliding_window", "attention_chunk_size")  # all that transformers' masks read from a config


def check_supported(model: Any, layers: Collection[int]) -> dict[int, LayerSpec]:
    """The specs of layers of a meta model. Raises InputError with the model type and why a layer cannot run alone."""
    specs: dict[int, LayerSpec] = {}
    for layer, spec in layer_specs(model, layers).items():
        if isinstance(spec, str):
            raise InputError(spec)
        specs[layer] = spec
    return specs


@torch.no_grad()
def layer_specs(model: Any, layers: Collection[int]) -> dict[int, LayerSpec | str]:
    """The specs of layers of a meta model; for a layer that cannot run alone, the error message."""
    specs: dict[int, LayerSpec | str] = {}
    with torch.device("cpu"):  # values are compared, also inside a caller's torch.device("meta")
        runnable = runnable_encoder(model) if is_encoder(model) else _weightless(model)
        for layer in sorted(layers):
            try:
                if is_encoder(model):
                    specs[layer] = encoder_spec(runnable, layer)
                else:
                    specs[layer] = _spec(runnable, model.config, layer)
            except InputError as error:
                specs[layer] = str(error)
    return specs


def _spec(runnable: Any, config: Any, layer: int) -> LayerSpec:
    """A layer's spec; the runnable model has small windows, `config` the LLM's."""
    call = _call(runnable, layer)
    inputs = frozenset(name for name in INPUTS if call.get(name) is not None)
    if reason := _difference(runnable, layer, call, layer_spec(runnable.rotary_emb, runnable.config, layer, inputs)):
        raise unsupported(config, f"layer {layer} {reason}")
    spec = layer_spec(runnable.rotary_emb, config, layer, inputs)
    return replace(spec, rotates=_rotates(runnable.layers[layer], call))


def _weightless(model: Any) -> Any:
    """A copy of a meta model that can run, except for its layers; its weights are ones."""
    runnable = copy.deepcopy(model)
    for name in WINDOWS:
        if getattr(runnable.config, name, None) is not None:
            setattr(runnable.config, name, WINDOW)
    set_attention(runnable.config, "eager")  # other implementations omit masks where they can
    large = {
        name: child for name, child in runnable.named_children() if name == "layers" or isinstance(child, nn.Embedding)
    }
    for name in large:
        setattr(runnable, name, None)
    runnable.to_empty(device="cpu")
    for tensor in (*runnable.parameters(), *runnable.buffers()):
        tensor.fill_(1)
    for name, child in large.items():
        setattr(runnable, name, child)
        if name != "layers":  # its values do not matter
            child.forward = partial(_embedded, width=child.embedding_dim)
    runnable.rotary_emb = rotary_embedding(runnable)
    return runnable


def _embedded(tokens: Tensor, width: int) -> Tensor:
    return torch.linspace(-1, 1, tokens.numel() * width).reshape(*tokens.shape, width)


def _call(runnable: Any, last: int) -> Call:
    """The arguments of layer `last` in a forward pass."""
    size = (1, TOKENS, runnable.config.hidden_size)
    found = layer_call(
        runnable.layers, last, lambda: runnable(torch.arange(TOKENS)[None], use_cache=False), lambda one: one == size
    )
    if isinstance(found, str):
        raise unsupported(runnable.config, found)
    return found


def _difference(runnable: Any, layer: int, call: Call, spec: LayerSpec) -> str | None:
    """How a layer's inputs in its model differ from those that this project passes by its spec; None: not at all."""
    extra = [name for name, value in call.items() if name not in ("hidden_states", *INPUTS) and not is_plain(value)]
    if extra:
        return f"is also given {', '.join(extra)}"
    other = _other_mask(call, spec) or _other_rotation(runnable.rotary_emb, call, spec)
    return unsaved_buffers(runnable.layers[layer]) or other


def _other_mask(call: Call, spec: LayerSpec) -> str | None:
    mask = call.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        return "does not mix its tokens by masked attention"
    expected = causal_mask(TOKENS, spec.window, mask)
    same = mask.shape == expected.shape and torch.equal(mask == 0, expected == 0)
    return None if same else "does not look back in the usual way, at all tokens or at a window of the last ones"


def _other_rotation(rotary: nn.Module, call: Call, spec: LayerSpec) -> str | None:
    passed, index = call.get("position_embeddings"), torch.arange(TOKENS)[None]
    if passed is None:
        return "is given no rotary positions"
    if not (isinstance(passed, tuple) and len(passed) == 2):
        return "is not given its rotary positions as cosines and sines"
    expected = rotary(call["hidden_states"], index, **spec.rotary_options)
    same = all(torch.equal(one, other) for one, other in zip(passed, expected, strict=True))
    return None if same else "is given other rotary positions than its model's rotary_emb makes of 0, 1, 2, ..."


def _rotates(layer: nn.Module, call: Call) -> bool:
    """Whether a layer makes any use of its rotary positions; its own code is run, without values.

    Experts of a mixture cannot be chosen without values; attention, which rotates, comes before them.
    """
    inputs = {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in call.items()}
    inputs["position_embeddings"] = tuple(one.to("meta") for one in call["position_embeddings"])
    completed = False
    with torch.device("meta"), Uses(inputs["position_embeddings"]) as uses, suppress(Exception):
        type(layer).forward(layer, **inputs)
        completed = True
    return uses.seen or not completed  # unknown: nearly all layers do
