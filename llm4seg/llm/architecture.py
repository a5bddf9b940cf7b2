"""The LLM as transformers builds it from its config: any architecture whose model has `layers` and `rotary_emb`.

`transformers` is imported where it is used, since that takes seconds.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.errors import InputError


def skeleton(config: dict[str, Any]) -> Any:
    """The whole LLM without memory behind its weights (on the meta device), computing in float32.

    All layers are there, so that each is built with its own index and its own entries of per-layer lists.
    Raises InputError when transformers does not know the architecture, or it is not of the kind that is needed.
    """
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise InputError(f"the LLM's config: model_type: found {kind!r}, which transformers does not know")
    with torch.device("meta"):
        model = AutoModel.from_config(CONFIG_MAPPING[kind].from_dict(config), dtype=torch.float32)
    if not hasattr(model, "layers") or not hasattr(model, "rotary_emb"):
        raise InputError(
            f"the LLM's config: model_type: found {kind!r}, allowed: a decoder with rotary position embedding"
        )
    return model


def check_tensors(layer: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError unless `tensors` are what a decoder layer of this architecture consists of."""
    wanted = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise InputError(f"{where}: has no tensor {name}")
        if name not in wanted:
            raise InputError(f"{where}: tensor {name} has no place in a {type(layer).__name__}")
        if (found := tuple(tensors[name].shape)) != wanted[name]:
            raise InputError(f"{where}: {name}: found shape {list(found)}, allowed: {list(wanted[name])}")
        if not tensors[name].isfinite().all():
            raise InputError(f"{where}: {name} holds values that are not finite")


def pretrained_layer(model: Any, index: int, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Decoder layer `index` of a skeleton, with weights given to it."""
    layer: nn.Module = model.layers[index]
    layer.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return layer


@torch.no_grad()
def random_layer(model: Any, index: int) -> nn.Module:
    """Decoder layer `index` of a skeleton, drawn by the architecture's own initialiser from torch's generator.

    For LLaMA and its relatives: matrices normal with the config's `initializer_range`, biases 0, norms 1.
    """
    layer: nn.Module = model.layers[index].to_empty(device="cpu")
    layer.apply(model._init_weights)
    return layer


def rotary_embedding(model: Any) -> nn.Module:
    """The LLM's own rotary position embedding, its frequencies really computed (a skeleton's are not)."""
    rotary: nn.Module = type(model.rotary_emb)(model.config)
    return rotary
