"""Networks: CNN encoder-decoders, the block in the bottleneck, and the hybrid of both."""

from collections.abc import Sequence

from llm4seg.config.schema import Model
from llm4seg.llm.store import LayerStore
from llm4seg.models.backbones import IOShape, build_backbone
from llm4seg.models.bottleneck import build_bottleneck
from llm4seg.models.hybrid import Hybrid

__all__ = ["Hybrid", "build_model"]


def build_model(
    section: Model,
    store: LayerStore | None,
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    seed: int,
    size: Sequence[int] | None = None,
) -> Hybrid:
    """The untrained model of the `model` section; `store` is needed unless the bottleneck is `identity`.

    `size` is that of the images; a backbone of a fixed size has to know it.

    New weights are drawn from torch's generator: first the CNN's, so that they are the same whatever sits in the
    bottleneck, then the adapters'. Random and shuffled LLM layers are drawn from `seed` alone, so that frozen ones can
    be made again. Raises InputError when the store lacks a layer.
    """
    backbone = build_backbone(section.chosen, IOShape(spatial_dims, in_channels, out_channels, size))
    bottleneck = build_bottleneck(section, store, backbone.channels, seed)
    return Hybrid(backbone.encoder, bottleneck, backbone.decoder, section.stride)
