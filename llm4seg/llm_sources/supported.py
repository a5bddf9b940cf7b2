"""Whether an LLM's layers can run alone: whether their whole model gives them the inputs that this project gives them.

No list of families: transformers' own forward pass of the whole model is run, without weights.
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
    """The specs of layers of a meta model. Raises InputError that names the model type and why one cannot run alone."""
    specs: dict[int, LayerSpec] = {}
    for layer, spec in layer_specs(model, layers).items():
        if isinstance(spec, str):
            raise InputError(spec)
        specs[layer] = spec
    return specs


@torch.no_grad()
def layer_specs(model: Any, layers: Collection[int]) -> dict[int, LayerSpec | str]:
    """The specs of layers of a meta model; for a layer that cannot run alone, the message that says why."""
    specs: dict[int, LayerSpec | str] = {}
    with torch.device("cpu"):  # values are compared, also where the model that they are for is built without any
        whole = _weightless(model)
        for layer in sorted(layers):
            try:
                specs[layer] = _spec(whole, model.config, layer)
            except InputError as error:
                specs[layer] = str(error)
    return specs


def _spec(whole: Any, config: Any, layer: int) -> LayerSpec:
    """A layer's spec; `whole` has windows of its own, `config` those of the LLM."""
    call = _call(whole, layer)
    inputs = frozenset(name for name in INPUTS if call.get(name) is not None)
    if reason := _difference(whole, layer, call, layer_spec(whole.rotary_emb, whole.config, layer, inputs)):
        raise unsupported(config, f"layer {layer} {reason}")
    spec = layer_spec(whole.rotary_emb, config, layer, inputs)
    return replace(spec, rotates=_rotates(whole.layers[layer], call))


def _weightless(model: Any) -> Any:
    """A copy of a meta model that can run, but for its layers; of weights it has nothing but ones."""
    whole = copy.deepcopy(model)
    for name in WINDOWS:
        if getattr(whole.config, name, None) is not None:
            setattr(whole.config, name, WINDOW)
    set_attention(whole.config, "eager")  # the others leave a mask out where they can do without
    large = {
        name: child for name, child in whole.named_children() if name == "layers" or isinstance(child, nn.Embedding)
    }
    for name in large:
        setattr(whole, name, None)
    whole.to_empty(device="cpu")
    for tensor in (*whole.parameters(), *whole.buffers()):
        tensor.fill_(1)
    for name, child in large.items():
        setattr(whole, name, child)
        if name != "layers":  # its values do not matter
            child.forward = partial(_embedded, width=child.embedding_dim)
    whole.rotary_emb = rotary_embedding(whole)
    return whole


def _embedded(tokens: Tensor, width: int) -> Tensor:
    return torch.linspace(-1, 1, tokens.numel() * width).reshape(*tokens.shape, width)


class _Reached(Exception):
    """The layer of interest has been called."""


class _Recorder:
    """Takes the place of a layer's forward pass: records its arguments, and returns the hidden states as they came."""

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


def _call(whole: Any, last: int) -> Call:
    """The arguments of layer `last`. In most families layers return a tensor, in some a tuple."""
    failures = []
    for returns_tuple in (False, True):
        recorders = [_Recorder(layer, returns_tuple, number == last) for number, layer in enumerate(whole.layers)]
        for layer, recorder in zip(whole.layers, recorders, strict=True):
            layer.forward = recorder
        failures.append(_failure(whole, recorders))
        for layer in whole.layers:
            del layer.forward
        if failures[-1] is None:
            return recorders[last].calls[-1]
    raise unsupported(whole.config, str(failures[0]))


def _failure(whole: Any, recorders: list[_Recorder]) -> str | None:
    """Run the model on some tokens; says what is wrong if they do not pass from layer to layer as they are."""
    size = (1, TOKENS, whole.config.hidden_size)
    try:
        whole(torch.arange(TOKENS)[None], use_cache=False)
    except _Reached:
        seen = [call["hidden_states"] for recorder in recorders for call in recorder.calls]
        if all(hidden.shape == size and torch.equal(hidden, seen[0]) for hidden in seen):
            return None
        return "what enters a layer is not simply what left the one before"
    except Exception as error:  # any error of transformers' code about inputs that it does not expect
        message = " ".join(str(error).split())
        return f"its layers cannot be run one after the other by hidden states alone (transformers: {message})"
    return "its forward pass does not go through its layers one after the other"


def _difference(whole: Any, layer: int, call: Call, spec: LayerSpec) -> str | None:
    """How the inputs that a layer has in its model differ from those that this project gives to one of its spec."""
    extra = [name for name, value in call.items() if name not in ("hidden_states", *INPUTS) and not _plain(value)]
    if extra:
        return f"is also given {', '.join(extra)}"
    module = whole.layers[layer]
    if unsaved := {name for name, _ in module.named_buffers()} - module.state_dict().keys():
        return f"keeps {', '.join(sorted(unsaved))}, which no checkpoint holds"
    return _other_mask(call, spec) or _other_rotation(whole.rotary_emb, call, spec)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _other_mask(call: Call, spec: LayerSpec) -> str | None:
    mask = call.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        return "does not mix its tokens by masked attention"
    ours = causal_mask(TOKENS, spec.window, mask)
    same = mask.shape == ours.shape and torch.equal(mask == 0, ours == 0)
    return None if same else "does not look back in the usual way, at all tokens or at a window of the last ones"


def _other_rotation(rotary: nn.Module, call: Call, spec: LayerSpec) -> str | None:
    theirs, index = call.get("position_embeddings"), torch.arange(TOKENS)[None]
    if theirs is None:
        return "is given no rotary positions"
    if not (isinstance(theirs, tuple) and len(theirs) == 2):
        return "is not given its rotary positions as cosines and sines"
    ours = rotary(call["hidden_states"], index, **spec.rotary_options)
    same = all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
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
        if function.__name__ != "__get__":  # their dtype or shape, of which nothing is computed
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

    Experts of a mixture cannot be chosen among like that; attention, which rotates, comes before them.
    """
    inputs = {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in call.items()}
    inputs["position_embeddings"] = tuple(one.to("meta") for one in call["position_embeddings"])
    reached_the_end = False
    with torch.device("meta"), _Uses(inputs["position_embeddings"]) as uses, suppress(Exception):
        type(layer).forward(layer, **inputs)
        reached_the_end = True
    return uses.seen or not reached_the_end  # not known: as nearly all do
