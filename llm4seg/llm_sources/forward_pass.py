"""A layer's call in the forward pass of a complete model of transformers, and what the layer makes of its arguments."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Call = dict[str, Any]  # the arguments of a layer's forward pass, by name


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
        hidden = call["hidden_states"]
        self.calls.append(call)
        if self._last:
            raise _Reached
        return (hidden,) if self._returns_tuple else hidden


def layer_call(
    layers: nn.ModuleList, last: int, run: Callable[[], Any], fits: Callable[[torch.Size], bool]
) -> Call | str:
    """The arguments of layer `last` when `run` runs the complete model; a message where hidden states of a shape that
    `fits` do not simply pass from layer to layer. In most families layers return a tensor, in some a tuple.
    """
    failures = []
    for returns_tuple in (False, True):
        recorders = [_Recorder(layer, returns_tuple, number == last) for number, layer in enumerate(layers)]
        for layer, recorder in zip(layers, recorders, strict=True):
            layer.forward = recorder
        failures.append(_failure(run, fits, recorders))
        for layer in layers:
            del layer.forward
        if failures[-1] is None:
            return recorders[last].calls[-1]
    return str(failures[0])


def _failure(run: Callable[[], Any], fits: Callable[[torch.Size], bool], recorders: list[_Recorder]) -> str | None:
    """Run the model; returns a message unless hidden states pass from layer to layer unchanged."""
    try:
        run()
    except _Reached:
        seen = [call["hidden_states"] for recorder in recorders for call in recorder.calls]
        if all(fits(hidden.shape) and torch.equal(hidden, seen[0]) for hidden in seen):
            return None
        return "what enters a layer is not simply what left the one before"
    except Exception as error:  # any error of transformers' code about inputs that it does not expect
        message = " ".join(str(error).split())
        return f"its layers cannot be run one after the other by hidden states alone (transformers: {message})"
    return "its forward pass does not go through its layers one after the other"


def is_plain(value: Any) -> bool:
    """Whether a layer's argument is a setting rather than something to compute with."""
    return value is None or isinstance(value, bool | int | float | str)


def unsaved_buffers(layer: nn.Module) -> str | None:
    """A message where a layer has buffers that are in no checkpoint."""
    unsaved = {name for name, _ in layer.named_buffers()} - layer.state_dict().keys()
    return f"keeps {', '.join(sorted(unsaved))}, which no checkpoint holds" if unsaved else None


class Uses(TorchFunctionMode):
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
