"""The bottleneck of a hybrid: identity, the LLM block, or an MLP of the same size as a control."""

from torch import nn

from llm4seg.config.schema import Model
from llm4seg.llm.architecture import layers_config
from llm4seg.llm.store import LayerStore
from llm4seg.models.bottleneck.adapters import ACTIVATIONS, adapter, adapter_parameters, control_width
from llm4seg.models.bottleneck.block import Activation, TokenBlock
from llm4seg.models.bottleneck.layers import LLMLayers

__all__ = ["LLMLayers", "TokenBlock", "build_bottleneck"]


def build_bottleneck(
    section: Model, store: LayerStore | None, channels: int, seed: int, mlp_width: int | None = None
) -> nn.Module:
    """The bottleneck of the `model` section for feature maps of `channels`; all but `identity` need the store.

    The hidden width of an MLP follows from the LLM's; a trained one's, `mlp_width`, needs no store. The adapters'
    weights come from torch's generator, those of random and shuffled LLM layers from `seed`.
    """
    if section.bottleneck == "identity":
        return nn.Identity()
    if section.bottleneck == "mlp":
        width = mlp_width or _control_width(section, store, channels)
        core = Activation(ACTIVATIONS[section.llm.adapter.activation])
        return TokenBlock(section.llm, channels, nn.Linear(channels, width), core, nn.Linear(width, channels))
    assert store is not None
    hidden = layers_config(store.config).hidden_size
    adapter_in = adapter(section.llm.adapter, channels, hidden)
    adapter_out = adapter(section.llm.adapter, hidden, channels)
    return TokenBlock(section.llm, channels, adapter_in, LLMLayers(section.llm, store, seed), adapter_out)


def _control_width(section: Model, store: LayerStore | None, channels: int) -> int:
    assert store is not None, "model.bottleneck: the MLP's width follows from the LLM's"
    hidden = layers_config(store.config).hidden_size
    return control_width(adapter_parameters(section.llm.adapter, channels, hidden), channels)
