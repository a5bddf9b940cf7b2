"""MONAI's convolutional networks, separated into encoder and decoder.

Heads for deep supervision are left out, since a parameter without a gradient stops distributed training.
`import monai` takes ten seconds, so it is imported on use.
"""

from typing import Any

from torch import nn

from llm4seg.config.schema.backbones import AttentionUNet, DynUNet, SegResNet, UNet, UNetPlusPlus
from llm4seg.models.backbones.parts import (
    Added,
    Attended,
    Backbone,
    Concatenated,
    Decoder,
    Encoder,
    NestedDecoder,
    NestedLevel,
)
from llm4seg.models.backbones.registry import IOShape, register


@register(UNet)
def unet(section: UNet, shape: IOShape) -> Backbone:
    """U-Net with strided convolutions; the last two levels share a resolution."""
    from monai.networks import nets

    channels, steps = section.channels, len(section.channels) - 1
    network = nets.UNet(
        shape.spatial_dims,
        shape.in_channels,
        shape.out_channels,
        channels,
        [2] * steps,
        num_res_units=section.residual_units,
    )
    downs, ups, block = [], [], network.model
    for _ in range(steps):  # each level holds the next in its middle
        down, connection, up = block
        downs.append(down)
        ups.append(Concatenated(up))
        block = connection.submodule
    return Backbone(Encoder([*downs, block]), Decoder(reversed(ups), nn.Identity()), channels[-1])


@register(AttentionUNet)
def attention_unet(section: AttentionUNet, shape: IOShape) -> Backbone:
    """U-Net with attention gates on its skip connections."""
    from monai.networks import nets

    channels, steps = section.channels, len(section.channels) - 1
    network = nets.AttentionUnet(shape.spatial_dims, shape.in_channels, shape.out_channels, channels, [2] * steps)
    stem, layer, head = network.model
    stages, ups = [stem], []
    for remaining in reversed(range(steps)):  # each level holds the next, and the last a stage alone
        ups.append(Attended(layer.upconv, layer.attention, layer.merge))
        stage, layer = layer.submodule if remaining else (layer.submodule, None)
        stages.append(stage)
    return Backbone(Encoder(stages), Decoder(reversed(ups), head), channels[-1])


@register(UNetPlusPlus)
def unet_plus_plus(section: UNetPlusPlus, shape: IOShape) -> Backbone:
    """UNet++ without deep supervision."""
    from monai.networks import nets

    network: Any = nets.BasicUNetPlusPlus(shape.spatial_dims, shape.in_channels, shape.out_channels, section.features)
    steps = 4
    stages = [getattr(network, f"conv_{level}_0") for level in range(steps + 1)]
    nodes = [[getattr(network, f"upcat_{level}_{node + 1}") for node in range(steps - level)] for level in range(steps)]
    decoder = NestedDecoder(map(NestedLevel, reversed(nodes)), network.final_conv_0_4)
    return Backbone(Encoder(stages), decoder, section.features[steps])


@register(SegResNet)
def segresnet(section: SegResNet, shape: IOShape) -> Backbone:
    """SegResNet: residual blocks with group norm, skips added."""
    from monai.networks import nets

    network = nets.SegResNet(
        shape.spatial_dims,
        section.filters,
        shape.in_channels,
        shape.out_channels,
        blocks_down=section.blocks_down,
        blocks_up=section.blocks_up,
    )
    first, *rest = network.down_layers
    steps = [Added(*parts) for parts in zip(network.up_samples, network.up_layers, strict=True)]
    channels = section.filters * section.stride
    return Backbone(
        Encoder([nn.Sequential(network.convInit, first), *rest]), Decoder(steps, network.conv_final), channels
    )


@register(DynUNet)
def dynunet(section: DynUNet, shape: IOShape) -> Backbone:
    """nnU-Net's network; without strides of its own every level is half as fine as the one before."""
    from monai.networks import nets

    assert section.strides != "auto", "its stride raises before"
    strides = section.strides or [2] * (len(section.filters) - 1)
    network = nets.DynUNet(
        shape.spatial_dims,
        shape.in_channels,
        shape.out_channels,
        kernel_size=section.kernels,
        strides=[1, *strides],
        upsample_kernel_size=strides,
        filters=section.filters,
        res_block=section.residual,
    )
    stages = [network.input_block, *network.downsamples, network.bottleneck]
    return Backbone(Encoder(stages), Decoder(network.upsamples, network.output_block), section.filters[-1])
