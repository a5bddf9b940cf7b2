"""Networks: CNN encoder-decoders, bottleneck blocks, and the hybrid of both; trained models on disk."""

from collections.abc import Sequence

from llm4seg.config.schema import Model
from llm4seg.llm.store import LayerStore
from llm4seg.models.backbones import IOShape, build_backbone
from llm4seg.models.backbones.parts import Decoder
from llm4seg.models.bottleneck import build_bottleneck
from llm4seg.models.hybrid import Hybrid
from llm4seg.models.upsampling import convert_upsampling

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
    deep_supervision: bool = False,
    mlp_width: int | None = None,
) -> Hybrid:
    """The untrained model of the `model` section; `store` is needed unless the bottleneck is `identity`.

    `size` is that of the images; backbones of a fixed size need it. `deep_supervision`: with heads at the decoder's
    coarser resolutions, whose logits are returned in training (see `Decoder`). `mlp_width`: of an MLP that needs no
    store.

    New weights come from torch's generator: first the CNN's, so that they are the same with any bottleneck, then the
    adapters'. Random and shuffled LLM layers come from `seed` alone, so that frozen ones can be made again. Raises
    InputError when the store lacks a layer.
    """
    backbone = build_backbone(section.chosen, IOShape(spatial_dims, in_channels, out_channels, size))
    if deep_supervision:
        assert isinstance(backbone.decoder, Decoder), "the config refuses other backbones"
        backbone.decoder.supervise(section.chosen.decoder_channels, out_channels, spatial_dims)
    bottleneck = build_bottleneck(section, store, backbone.channels, seed, mlp_width)
    model = Hybrid(backbone.encoder, bottleneck, backbone.decoder, section.axis_strides(spatial_dims))
    convert_upsampling(model)
    return model
