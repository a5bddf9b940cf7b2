"""Trained parts around the LLM layers: adapters between two widths, a gate, the MLP control's width."""

import torch
from torch import Tensor, nn

from llm4seg.config.schema import Adapter

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


def adapter(section: Adapter, channels: int, out_channels: int) -> nn.Module:
    """An adapter from one width to another, per token: linear, as in the paper, or an MLP through a bottleneck."""
    if section.kind == "linear":
        return nn.Linear(channels, out_channels)
    norm = nn.LayerNorm(channels) if section.norm else nn.Identity()
    narrow, widen = nn.Linear(channels, section.width), nn.Linear(section.width, out_channels)
    return nn.Sequential(norm, narrow, ACTIVATIONS[section.activation](), widen)


def adapter_parameters(section: Adapter, channels: int, hidden: int) -> int:
    """The number of parameters of both adapters between `channels` and the LLM's width `hidden`."""
    with torch.device("meta"):
        both = adapter(section, channels, hidden), adapter(section, hidden, channels)
    return sum(parameter.numel() for one in both for parameter in one.parameters())


def control_width(parameters: int, channels: int) -> int:
    """The hidden width of an MLP channels -> width -> channels whose parameters are nearest to `parameters`."""
    return max(1, round((parameters - channels) / (2 * channels + 1)))


class Gate(nn.Module):
    """A learned scale per channel, initially zero, so that a residual branch has no effect at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(channels))

    def forward(self, features_NCS: Tensor) -> Tensor:
        return features_NCS * self.scale.reshape(-1, *[1] * (features_NCS.ndim - 2))
