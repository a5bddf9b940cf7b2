"""CNN encoder-decoders: an encoder that gives feature maps, the finest first, and a decoder that takes them back."""

from dataclasses import dataclass

from torch import nn

from llm4seg.models.backbones.cmunext import Decoder, Encoder
from llm4seg.sections import Model


@dataclass(frozen=True)
class Backbone:
    """The two halves of a network, and the channels of the feature map between them."""

    encoder: nn.Module
    decoder: nn.Module
    channels: int


def build_backbone(section: Model, spatial_dims: int, in_channels: int, out_channels: int) -> Backbone:
    """The network that `model.backbone` names, its weights drawn from torch's generator."""
    shape = section.cmunext
    return Backbone(
        encoder=Encoder(spatial_dims, in_channels, shape.dims, shape.depths, shape.kernels),
        decoder=Decoder(spatial_dims, shape.dims, out_channels),
        channels=shape.dims[-1],
    )
