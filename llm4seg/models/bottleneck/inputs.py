"""A cache of LLM layers' inputs beside the hidden states: positions and masks, which depend on the grid alone."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from llm4seg.llm.layer_inputs import LayerSpec

Inputs = dict[LayerSpec, dict[str, Any]]  # of the layers of each spec, by name


class InputCache:
    """Inputs by grid, dtype and device, made once.

    Those of training stay, since a CUDA graph reads them where they are; of inference, whose images may differ in size,
    only the latest. A copy of the cache is empty, as it is after pickling: it belongs to no saved model.
    """

    def __init__(self) -> None:
        self._training: dict[Hashable, Inputs] = {}
        self._latest: tuple[Hashable, Inputs] | None = None

    def get(self, key: Hashable, like: Tensor, make: Callable[[], Inputs]) -> Inputs:
        """The inputs of a key, by `make` where there are none yet; `like`: the hidden states that they go with.

        What is traced, by torch.compile or an export, and what is computed on fake tensors, makes its own.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(like) is not Tensor:
            return make()
        if key in self._training:
            return self._training[key]
        if self._latest is None or self._latest[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # a later backward pass may need them
                self._latest = key, make()
        inputs = self._latest[1]
        if torch.is_grad_enabled():
            self._training[key], self._latest = inputs, None
        return inputs

    def __reduce__(self) -> tuple[type["InputCache"], tuple[()]]:
        return InputCache, ()
