"""Parts of backbones: an encoder of stages downward, a decoder of steps upward.

An encoder maps images to a list of feature maps, the finest first; a decoder maps that list to logits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Backbone:
    """The two halves of a network, and the channels of the coarsest feature map between them."""

    encoder: nn.Module
    decoder: nn.Module
    channels: int


class Encoder(nn.Module):
    """An encoder of sequential stages, each of which returns a feature map."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, images_NCS: Tensor) -> list[Tensor]:
        features, out = [], images_NCS
        for stage in self.stages:
            out = stage(out)
            features.append(out)
        return features


class PyramidEncoder(nn.Module):
    """An encoder of the images and of the feature maps of `body`, each through its own convolution."""

    def __init__(self, body: nn.Module, convolutions: Iterable[nn.Module]) -> None:
        super().__init__()
        self.body = body
        self.convolutions = nn.ModuleList(convolutions)

    def forward(self, images_NCS: Tensor) -> list[Tensor]:
        maps = [images_NCS, *self.body(images_NCS)]
        return [convolution(one) for convolution, one in zip(self.convolutions, maps, strict=True)]


class Decoder(nn.Module):
    """A decoder of steps `step(features, skip)`, from the coarsest feature map upward; then the head, for logits.

    With `supervised` heads, for deep supervision, it returns in training a list of logits: at full resolution, then
    at those of the steps before the last, but for the first step, the finest first. The rest of the time, and without
    such heads, it returns those at full resolution alone.
    """

    def __init__(self, steps: Iterable[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.head = head
        self.supervised = nn.ModuleList()  # a head for each step but the first and the last

    def supervise(self, channels: Sequence[int], out_channels: int, spatial_dims: int) -> None:
        """Add heads for deep supervision, with weights from torch's generator; `channels`: those of the steps' maps."""
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.supervised.extend(conv(width, out_channels, 1) for width in channels[1:-1])

    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        *skips, out = features
        coarser = []
        for number, (step, skip) in enumerate(zip(self.steps, reversed(skips), strict=True)):
            out = step(out, skip)
            if self.training and 0 < number <= len(self.supervised):
                coarser.append(self.supervised[number - 1](out))
        logits: Tensor = self.head(out)
        return [logits, *reversed(coarser)] if coarser else logits


class Concatenated(nn.Module):
    """A decoder step: concatenate both maps, of one size, and upsample them together."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.up = up

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.up(torch.cat([skip, features], dim=1))
        return out


class Added(nn.Module):
    """A decoder step: upsample, add the skip connection, refine the sum."""

    def __init__(self, up: nn.Module, refine: nn.Module) -> None:
        super().__init__()
        self.up = up
        self.refine = refine

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.refine(self.up(features) + skip)
        return out


class Attended(nn.Module):
    """A decoder step: upsample, weight the skip connection by attention, merge both."""

    def __init__(self, up: nn.Module, attention: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.up = up
        self.attention = attention
        self.merge = merge

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        up = self.up(features)
        out: Tensor = self.merge(torch.cat([self.attention(g=up, x=skip), up], dim=1))
        return out


class NestedLevel(nn.Module):
    """A level of UNet++: node j fuses the maps that the level has so far with map j of the level below."""

    def __init__(self, nodes: Iterable[nn.Module]) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(nodes)

    def forward(self, skip: Tensor, below: list[Tensor]) -> list[Tensor]:
        maps = [skip]
        for node, coarser in zip(self.nodes, below, strict=True):
            maps.append(node(coarser, torch.cat(maps, dim=1)))
        return maps


class NestedDecoder(nn.Module):
    """UNet++: level by level upwards, then the head on the finest level's last map."""

    def __init__(self, levels: Iterable[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.head = head

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, coarsest = features
        maps = [coarsest]
        for level, skip in zip(self.levels, reversed(skips), strict=True):
            maps = level(skip, maps)
        logits: Tensor = self.head(maps[-1])
        return logits
