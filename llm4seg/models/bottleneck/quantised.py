"""Frozen LLM layers in fewer bits."""

import torch
from torch import nn


def quantise(module: nn.Module, dtype: str) -> None:
    """Store a module's weights as `model.llm.dtype` says, in place."""
    if dtype == "bf16":
        module.to(torch.bfloat16)
    elif dtype != "fp32":
        raise NotImplementedError(dtype)
