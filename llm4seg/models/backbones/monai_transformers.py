"""MONAI's networks with a transformer encoder, separated into encoder and decoder."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from llm4seg.config.schema.backbones import UNETR, SwinUNETR
from llm4seg.models.backbones.parts import Backbone, Decoder, PyramidEncoder
from llm4seg.models.backbones.registry import IOShape, register
from llm4seg.utils.errors import InputError

TAPPED = (3, 6, 9)  # the vision transformer's layers, counted from 0, whose tokens are UNETR's skip connections


class ViTMaps(nn.Module):
    """Tokens of a vision transformer as feature maps: of the tapped layers, then of the last layer."""

    def __init__(self, vit: Any, size: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__()
        self.vit = vit
        self._size = tuple(size)
        self._grid = tuple(grid)
        for block in vit.blocks:
            block.norm_cross_attn = nn.Identity()  # there is no cross-attention that it would norm

    def forward(self, images_NCS: Tensor) -> list[Tensor]:
        if tuple(images_NCS.shape[2:]) != self._size:
            raise InputError(
                f"image size: found {[*images_NCS.shape[2:]]}, allowed: {[*self._size]}, "
                "the one whose positions model.backbone unetr was built for"
            )
        last_NTC, tokens = self.vit(images_NCS)
        return [self._map(tokens_NTC) for tokens_NTC in [*(tokens[layer] for layer in TAPPED), last_NTC]]

    def _map(self, tokens_NTC: Tensor) -> Tensor:
        return tokens_NTC.transpose(1, 2).unflatten(2, self._grid).contiguous()


@register(UNETR)
def unetr(section: UNETR, shape: IOShape) -> Backbone:
    """UNETR for images of one size."""
    from monai.networks import nets

    size = shape.size
    assert size is not None
    network = nets.UNETR(
        shape.in_channels,
        shape.out_channels,
        size,
        section.feature_size,
        section.hidden_size,
        section.mlp_size,
        section.heads,
        spatial_dims=shape.spatial_dims,
    )
    convolutions = [network.encoder1, network.encoder2, network.encoder3, network.encoder4, nn.Identity()]
    steps = [network.decoder5, network.decoder4, network.decoder3, network.decoder2]
    encoder = PyramidEncoder(ViTMaps(network.vit, size, network.feat_size), convolutions)
    return Backbone(encoder, Decoder(steps, network.out), section.hidden_size)


@register(SwinUNETR)
def swin_unetr(section: SwinUNETR, shape: IOShape) -> Backbone:
    """Swin UNETR, its first version."""
    from monai.networks import nets

    network = nets.SwinUNETR(
        shape.in_channels,
        shape.out_channels,
        depths=section.depths,
        num_heads=section.heads,
        window_size=section.window,
        feature_size=section.feature_size,
        spatial_dims=shape.spatial_dims,
    )
    fine = [network.encoder1, network.encoder2, network.encoder3, network.encoder4]
    steps = [network.decoder5, network.decoder4, network.decoder3, network.decoder2, network.decoder1]
    encoder = PyramidEncoder(network.swinViT, [*fine, nn.Identity(), network.encoder10])
    return Backbone(encoder, Decoder(steps, network.out), 16 * section.feature_size)
