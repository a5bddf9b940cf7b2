"""Check that an LLM's layers can run alone: that the complete model passes them the inputs that this project does.

No list of families: transformers' own forward pass of the complete model runs, without weights.
"""

import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from llm4seg.llm.architecture import rotary_embedding, unsupported
from llm4seg.llm.layer_inputs import INPUTS, LayerSpec, causal_mask, layer_spec
from llm4seg.llm.transformers_internals import set_attention
from llm4seg.utils.errors import InputError

TOKENS, WINDOW = 7, 3  # enough tokens for a window to show
WINDOWS = ("sliding_window", "attention_chunk_size")  # all that transformers' masks read from a config
Call = dict[str, Any]  # the arguments of a layer's forward pass, by name


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
        runnable = _weightless(model)
        for layer in sorted(layers):
            try:
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


class _Reached(Exception):
    """The layer of interest has been called."""


class _Recorder:
    """Replaces a layer's forward pass: records its arguments, and returns the hidden states unchanged."""

    def __init__(self, layer: nn.Module, returns_tuple: bool, last: bool) -> None:
        self.calls: list[Call] = []
        self._names = list(inspect.signature(layer.forward).parameters)
        self._returns_tuple, self._last = returns_tuple, last

    def __call__(self, *positional: Any, **named: Any) -> Any:
        call = dict(zip(self._names, positional, strict=False)) | named
        self.calls.append(call)
        if self._last:
            raise _Reached
        return (call["hidden_states"],) if self._returns_tuple else call["hidden_states"]


def _call(runnable: Any, last: int) -> Call:
    """The arguments of layer `last` in a forward pass. In most families layers return a tensor, in some a tuple."""
    failures = []
    for returns_tuple in (False, True):
        recorders = [_Recorder(layer, returns_tuple, number == last) for number, layer in enumerate(runnable.layers)]
        for layer, recorder in zip(runnable.layers, recorders, strict=True):
            layer.forward = recorder
        failures.append(_failure(runnable, recorders))
        for layer in runnable.layers:
            del layer.forward
        if failures[-1] is None:
            return recorders[last].calls[-1]
    raise unsupported(runnable.config, str(failures[0]))


def _failure(runnable: Any, recorders: list[_Recorder]) -> str | None:
    """Run the model on some tokens; returns a message unless hidden states pass from layer to layer unchanged."""
    size = (1, TOKENS, runnable.config.hidden_size)
    try:
        runnable(torch.arange(TOKENS)[None], use_cache=False)
    except _Reached:
        seen = [call["hidden_states"] for recorder in recorders for call in recorder.calls]
        if all(hidden.shape == size and torch.equal(hidden, seen[0]) for hidden in seen):
            return None
        return "what enters a layer is not simply what left the one before"
    except Exception as error:  # any error of transformers' code about inputs that it does not expect
        message = " ".join(str(error).split())
        return f"its layers cannot be run one after the other by hidden states alone (transformers: {message})"
    return "its forward pass does not go through its layers one after the other"


def _difference(runnable: Any, layer: int, call: Call, spec: LayerSpec) -> str | None:
    """How a layer's inputs in its model differ from those that this project passes by its spec; None: not at all."""
    extra = [name for name, value in call.items() if name not in ("hidden_states", *INPUTS) and not _plain(value)]
    if extra:
        return f"is also given {', '.join(extra)}"
    module = runnable.layers[layer]
    if unsaved := {name for name, _ in module.named_buffers()} - module.state_dict().keys():
        return f"keeps {', '.join(sorted(unsaved))}, which no checkpoint holds"
    return _other_mask(call, spec) or _other_rotation(runnable.rotary_emb, call, spec)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


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


class _Uses(TorchFunctionMode):
    """Records whether torch computes anything from some tensors."""

    def __init__(self, watched: Collection[Tensor]) -> None:
        super().__init__()
        self.seen = False
        self._watched = {id(tensor) for tensor in watched}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function.__name__ != "__get__":  # dtype or shape, which are not values
            self.seen = self.seen or any(id(one) in self._watched for one in _tensors((args, kwargs)))
        return function(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)


def _rotates(layer: nn.Module, call: Call) -> bool:
    """Whether a layer makes any use of its rotary positions; its own code is run, without values.

    Experts of a mixture cannot be chosen without values; attention, which rotates, comes before them.
    """
    inputs = {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in call.items()}
    inputs["position_embeddings"] = tuple(one.to("meta") for one in call["position_embeddings"])
    completed = False
    with torch.device("meta"), _Uses(inputs["position_embeddings"]) as uses, suppress(Exception):
        type(layer).forward(layer, **inputs)
        completed = True
    return uses.seen or not completed  # unknown: nearly all layers do
