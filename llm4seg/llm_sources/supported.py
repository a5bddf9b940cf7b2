"""Whether an LLM's layers can run alone: what its whole model hands to each of them is what this project hands to it.

No list of families: transformers' own forward pass of the whole model is asked, without weights.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from llm4seg.llm.architecture import rotary_embedding, unsupported
from llm4seg.llm.layer_inputs import INPUTS, LayerSpec, causal_mask, layer_spec

TOKENS, WINDOW = 7, 3  # enough tokens for a window to show
WINDOWS = ("sliding_window", "attention_chunk_size")  # all that transformers' masks read from a config
Call = dict[str, Any]  # what a layer was called with, by name


class _Enough(Exception):
    """The last layer that matters has been called."""


class _Spy:
    """Stands in for a layer's forward pass: notes what it is called with, and lets the hidden states through."""

    def __init__(self, layer: nn.Module, returns_tuple: bool, last: bool) -> None:
        self.calls: list[Call] = []
        self._names = list(inspect.signature(layer.forward).parameters)
        self._returns_tuple, self._last = returns_tuple, last

    def __call__(self, *positional: Any, **named: Any) -> Any:
        call = dict(zip(self._names, positional, strict=False)) | named
        self.calls.append(call)
        if self._last:
            raise _Enough
        return (call["hidden_states"],) if self._returns_tuple else call["hidden_states"]


@torch.no_grad()
def check_supported(model: Any, layers: Sequence[int]) -> dict[int, LayerSpec]:
    """Raise InputError that names the model type and the reason, unless each of `layers` can run alone.

    Returns their kinds.
    """
    with torch.device("cpu"):  # values are compared, also where the model that they are for is built without any
        return _kinds(model, layers)


def _kinds(model: Any, layers: Sequence[int]) -> dict[int, LayerSpec]:
    whole = _weightless(model)
    calls = _calls(whole, max(layers))
    kinds = {}
    for layer in layers:
        handed = frozenset(name for name in INPUTS if calls[layer].get(name) is not None)
        if reason := _difference(whole, layer, calls[layer], layer_spec(whole.rotary_emb, whole.config, layer, handed)):
            raise unsupported(model.config, f"layer {layer} {reason}")
        kind = layer_spec(whole.rotary_emb, model.config, layer, handed)
        kinds[layer] = replace(kind, rotates=_rotates(whole.layers[layer], calls[layer]))
    return kinds


def _weightless(model: Any) -> Any:
    """A copy of a skeleton that can run, once its layers are spies; of weights it has nothing but ones."""
    whole = copy.deepcopy(model)
    for name in WINDOWS:
        if getattr(whole.config, name, None) is not None:
            setattr(whole.config, name, WINDOW)
    whole.config._attn_implementation = "eager"  # the others leave a mask out where they can do without
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
        if name != "layers":  # what it gives does not matter
            child.forward = partial(_embedded, width=child.embedding_dim)
    whole.rotary_emb = rotary_embedding(whole)
    return whole


def _embedded(tokens: Tensor, width: int) -> Tensor:
    return torch.linspace(-1, 1, tokens.numel() * width).reshape(*tokens.shape, width)


def _calls(whole: Any, last: int) -> list[Call]:
    """What each layer up to `last` is called with. In most families layers return a tensor, in some a tuple."""
    failures = []
    for returns_tuple in (False, True):
        spies = [_Spy(layer, returns_tuple, number == last) for number, layer in enumerate(whole.layers)]
        for layer, spy in zip(whole.layers, spies, strict=True):
            layer.forward = spy
        failures.append(_failure(whole, spies))
        if failures[-1] is None:
            return [spy.calls[-1] if spy.calls else {} for spy in spies]
        for layer in whole.layers:
            del layer.forward
    raise unsupported(whole.config, str(failures[0]))


def _failure(whole: Any, spies: Sequence[_Spy]) -> str | None:
    """Send tokens through the model; says what is wrong if they do not come from layer to layer as they are."""
    size = (1, TOKENS, whole.config.hidden_size)
    try:
        whole(torch.arange(TOKENS)[None], use_cache=False)
    except _Enough:
        seen = [call["hidden_states"] for spy in spies for call in spy.calls]
        if all(hidden.shape == size and torch.equal(hidden, seen[0]) for hidden in seen):
            return None
        return "what enters a layer is not simply what left the one before"
    except Exception as error:  # whatever transformers' code says of inputs that it does not expect
        said = " ".join(str(error).split())
        return f"its layers cannot be run one after the other by hidden states alone (transformers: {said})"
    return "its forward pass does not go through its layers one after the other"


def _difference(whole: Any, layer: int, call: Call, kind: LayerSpec) -> str | None:
    """How what its model hands to a layer differs from what this project hands to one of its kind."""
    extra = [name for name, value in call.items() if name not in ("hidden_states", *INPUTS) and not _plain(value)]
    if extra:
        return f"is also given {', '.join(extra)}"
    module = whole.layers[layer]
    if unsaved := {name for name, _ in module.named_buffers()} - module.state_dict().keys():
        return f"keeps {', '.join(sorted(unsaved))}, which no checkpoint holds"
    return _other_mask(call, kind) or _other_rotation(whole.rotary_emb, call, kind)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _other_mask(call: Call, kind: LayerSpec) -> str | None:
    mask = call.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        return "does not mix its tokens by masked attention"
    ours = causal_mask(TOKENS, kind.window, mask)
    same = mask.shape == ours.shape and torch.equal(mask == 0, ours == 0)
    return None if same else "does not look back in the usual way, at all tokens or at a window of the last ones"


def _other_rotation(rotary: nn.Module, call: Call, kind: LayerSpec) -> str | None:
    theirs, index = call.get("position_embeddings"), torch.arange(TOKENS)[None]
    if theirs is None:
        return "is given no rotary positions"
    if not (isinstance(theirs, tuple) and len(theirs) == 2):
        return "is not given its rotary positions as cosines and sines"
    ours = rotary(call["hidden_states"], index, **kind.rotary_options)
    same = all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    return None if same else "is given other rotary positions than its model's rotary_emb makes of 0, 1, 2, ..."


class _Uses(TorchFunctionMode):
    """Notes whether torch is asked to compute anything with some tensors."""

    def __init__(self, watched: Sequence[Tensor]) -> None:
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
            self.seen = self.seen or any(id(one) in self._watched for one in tree_leaves((args, kwargs)))
        return function(*args, **(kwargs or {}))


def _rotates(layer: nn.Module, call: Call) -> bool:
    """Whether a layer makes any use of the rotation that it is handed; its own code is asked, without values.

    Experts of a mixture cannot be chosen among like that; attention, which rotates, comes before them.
    """
    handed = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), call)
    reached_the_end = False
    with torch.device("meta"), _Uses(handed["position_embeddings"]) as uses, suppress(Exception):
        type(layer).forward(layer, **handed)
        reached_the_end = True
    return uses.seen or not reached_the_end  # not known: as nearly all do
