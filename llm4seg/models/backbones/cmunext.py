"""CMUNeXt, a small CNN encoder-decoder with large depth-wise kernels, in 2-D and 3-D.

Tang et al., ISBI 2024 (arXiv 2308.01239); in 3-D the same layers with volumetric kernels and trilinear upsampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from llm4seg.config.schema.backbones import CMUNeXt
from llm4seg.models.backbones.parts import Backbone, Decoder
from llm4seg.models.backbones.registry import IOShape, register


@dataclass(frozen=True)
class Layers:
    """The layer classes for a number of spatial dimensions."""

    conv: type[nn.Conv2d] | type[nn.Conv3d]
    norm: type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
    pool: type[nn.MaxPool2d] | type[nn.MaxPool3d]
    upsampling: str


LAYERS = {
    2: Layers(nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, "bilinear"),
    3: Layers(nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, "trilinear"),
}


def conv_block(layers: Layers, channels: int, out_channels: int) -> list[nn.Module]:
    """3x3 convolution, BatchNorm, ReLU."""
    return [layers.conv(channels, out_channels, 3, padding=1), layers.norm(out_channels), nn.ReLU(inplace=True)]


def inverted_bottleneck(layers: Layers, channels: int, wide: int, out_channels: int) -> list[nn.Module]:
    """Two 1x1 convolutions through a wider middle, each followed by GELU and BatchNorm."""
    widen = [layers.conv(channels, wide, 1), nn.GELU(), layers.norm(wide)]
    narrow = [layers.conv(wide, out_channels, 1), nn.GELU(), layers.norm(out_channels)]
    return [*widen, *narrow]


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, *fn: nn.Module) -> None:
        super().__init__()
        self.fn = nn.Sequential(*fn)

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = features + self.fn(features)
        return added


def mixer(layers: Layers, channels: int, kernel: int) -> nn.Sequential:
    """Mixes over space with a large depth-wise convolution and a residual, then over channels."""
    depthwise = layers.conv(channels, channels, kernel, padding=kernel // 2, groups=channels)
    over_space = Residual(depthwise, nn.GELU(), layers.norm(channels))
    return nn.Sequential(over_space, *inverted_bottleneck(layers, channels, 4 * channels, channels))


class Stage(nn.Module):
    """Mixers at one resolution, then a convolution to the stage's output channels."""

    def __init__(self, layers: Layers, channels: int, out_channels: int, depth: int, kernel: int) -> None:
        super().__init__()
        self.mixers = nn.Sequential(*(mixer(layers, channels, kernel) for _ in range(depth)))
        self.out = nn.Sequential(*conv_block(layers, channels, out_channels))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.out(self.mixers(features))
        return out


class Encoder(nn.Module):
    """The encoder: images to feature maps, the finest first, each with half the sides of the one before."""

    def __init__(
        self, spatial_dims: int, in_channels: int, dims: Sequence[int], depths: Sequence[int], kernels: Sequence[int]
    ) -> None:
        super().__init__()
        layers = LAYERS[spatial_dims]
        self.stem = nn.Sequential(*conv_block(layers, in_channels, dims[0]))
        sides = zip([dims[0], *dims], dims, depths, kernels, strict=False)
        self.stages = nn.ModuleList(Stage(layers, *numbers) for numbers in sides)
        self.pool = layers.pool(2)

    def forward(self, images_NCS: Tensor) -> list[Tensor]:
        features = [self.stages[0](self.stem(images_NCS))]
        for stage in self.stages[1:]:
            features.append(stage(self.pool(features[-1])))
        return features


class Step(nn.Module):
    """One step of the decoder: upsample, then fuse with the encoder's features of that resolution."""

    def __init__(self, layers: Layers, channels: int, out_channels: int) -> None:
        super().__init__()
        upsample = nn.Upsample(scale_factor=2, mode=layers.upsampling, align_corners=False)
        self.up = nn.Sequential(upsample, *conv_block(layers, channels, out_channels))
        both = 2 * out_channels
        grouped = layers.conv(both, both, 3, padding=1, groups=2)
        channels_mix = inverted_bottleneck(layers, both, 4 * out_channels, out_channels)
        self.fuse = nn.Sequential(grouped, nn.GELU(), layers.norm(both), *channels_mix)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        fused: Tensor = self.fuse(torch.cat([skip, self.up(features)], dim=1))
        return fused


@register(CMUNeXt)
def build(section: CMUNeXt, shape: IOShape) -> Backbone:
    """The CMUNeXt of the section `model.cmunext`."""
    encoder = Encoder(shape.spatial_dims, shape.in_channels, section.dims, section.depths, section.kernels)
    return Backbone(encoder, decoder(shape.spatial_dims, section.dims, shape.out_channels), section.dims[-1])


def decoder(spatial_dims: int, dims: Sequence[int], out_channels: int) -> Decoder:
    """The decoder: feature maps, the finest first, to logits at the finest resolution."""
    layers = LAYERS[spatial_dims]
    steps = [Step(layers, coarse, fine) for coarse, fine in pairwise(reversed(dims))]
    return Decoder(steps, layers.conv(dims[0], out_channels, 1))
