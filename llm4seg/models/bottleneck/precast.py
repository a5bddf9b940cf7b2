"""Frozen LLM matrices cast once to autocast's dtype: autocast would cast them anew in each forward pass."""

import torch
from torch import nn

from llm4seg.models.bottleneck.layers import LLMLayers


def precast_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the frozen linear maps of a model's LLM layers, in place, for forward passes under autocast to `dtype`.

    The results are the same bits. Norms stay in float32, in which autocast leaves them; so does a layer that has other
    matrices than linear maps, such as a mixture's router, which may compute in float32 outside of autocast.
    """
    layers = [layer for core in model.modules() if isinstance(core, LLMLayers) for layer in core.layers]
    for layer in layers:
        linear = [module for module in layer.modules() if type(module) is nn.Linear]
        of_linear = {parameter for module in linear for parameter in module.parameters()}
        if all(parameter in of_linear for parameter in layer.parameters() if parameter.ndim > 1):
            for parameter in of_linear:
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)
