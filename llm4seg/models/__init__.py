"""The networks: a CNN encoder-decoder, the LLM block, and the hybrid of both."""

from torch import nn

from llm4seg.llm.store import LayerStore
from llm4seg.models.cmunext import Decoder, Encoder
from llm4seg.models.hybrid import Hybrid
from llm4seg.models.llm_block import LLMBlock
from llm4seg.sections import Model

__all__ = ["Hybrid", "build_model"]


def build_model(
    section: Model, store: LayerStore | None, *, spatial_dims: int, in_channels: int, out_channels: int
) -> Hybrid:
    """The untrained model of the `model` section; `store` is needed unless the bottleneck is `identity`.

    New weights are drawn from torch's generator: first the CNN's, so that they are the same whatever sits in the
    bottleneck, then the adapters', then those of a random LLM layer. Raises InputError when the store lacks the layer.
    """
    encoder = Encoder(spatial_dims, in_channels, section.dims, section.depths, section.kernels)
    decoder = Decoder(spatial_dims, section.dims, out_channels)
    bottleneck = nn.Identity() if section.bottleneck == "identity" else _llm_block(section, store)
    return Hybrid(encoder, bottleneck, decoder, section.stride)


def _llm_block(section: Model, store: LayerStore | None) -> LLMBlock:
    assert store is not None, "model.bottleneck: llm needs a layer store"
    return LLMBlock(section.llm, store, section.dims[-1])
