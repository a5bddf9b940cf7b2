"""Architectures of transformers, built from a config: decoders with `layers` and `rotary_emb`, and vision transformers.

`transformers` is imported where it is used, since that takes seconds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.llm.encoder import encoder_layers, is_encoder, norms_after
from llm4seg.llm.transformers_internals import decode_special_floats, initialize, set_attention
from llm4seg.utils.errors import InputError


def layers_config(config: dict[str, Any]) -> Any:
    """The config of the part whose layers are used, as transformers' class: a multimodal model's text config.

    Of a model that compares images with texts and writes none, such as SigLIP or CLIP, it is the vision config.

    Raises InputError when transformers does not know the architecture, or rejects the values.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )

    kind = config.get("model_type", "")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise InputError(f"the LLM's config: model_type: found {kind!r}, which transformers does not know")
    with _config_errors(kind):
        whole = CONFIG_MAPPING[kind].from_dict(decode_special_floats(config))
        compares = kind in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
        if compares and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            return whole.vision_config
        return whole.get_text_config(decoder=True)


def layer_count(config: dict[str, Any]) -> int:
    """The number of layers. Raises InputError as `layers_config` does, and for an architecture in stages."""
    part = layers_config(config)
    count = getattr(part, "num_hidden_layers", None)
    if not isinstance(count, int):
        raise unsupported(part, "its config has no num_hidden_layers, so its layers are not alike")
    return count


def meta_model(config: dict[str, Any]) -> Any:
    """The complete LLM or vision transformer on the meta device, without memory for its weights, in float32.

    It has all layers, so that each is built with its own index and its own entries of per-layer lists.
    Raises InputError when transformers cannot build it, or it lacks layers or, as a decoder, rotary positions.
    """
    from transformers import AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    part = layers_config(config)
    if quantized := config.get("quantization_config"):
        raise unsupported(part, f"its weights are quantized ({quantized.get('quant_method')})")
    if type(part) not in MODEL_MAPPING:
        kind = "vision" if "vision" in part.model_type else "text"
        raise unsupported(part, f"transformers builds no model of its {kind} part alone")
    set_attention(part, None)  # transformers' default: the checkpoint's own may not be installed
    with _config_errors(part.model_type), torch.device("meta"):
        model = AutoModel.from_config(part, dtype=torch.float32)
    layer_list(model)
    if not is_encoder(model) and not isinstance(getattr(model, "rotary_emb", None), nn.Module):
        raise unsupported(part, "its model has no `rotary_emb`, so its positions are not rotary")
    return model


def layer_list(model: Any) -> tuple[str, nn.ModuleList]:
    """The path of a model's layers in it, and the layers. Raises InputError where it has no such list, or several."""
    if is_encoder(model):
        found = encoder_layers(model)
    else:
        layers = getattr(model, "layers", None)
        found = [("layers", layers)] if isinstance(layers, nn.ModuleList) else []
    if not found:
        raise unsupported(model.config, "its model has no list of `layers`")
    if len(found) > 1:
        raise unsupported(model.config, f"its model has {len(found)} lists of layers")
    return found[0]


def unsupported(config: Any, reason: str) -> InputError:
    """The error for an LLM that transformers supports and this project does not."""
    return InputError(f"the LLM's config: model_type: {config.model_type!r} is not supported: {reason}")


@contextmanager
def _config_errors(kind: str) -> Iterator[None]:
    """Convert any error of transformers about a config to InputError: it is about the user's file."""
    try:
        yield
    except Exception as error:
        message = " ".join(str(error).split())
        raise InputError(f"the LLM's config: model_type {kind!r}: transformers cannot build it: {message}") from error


def final_norm(model: Any) -> tuple[str, nn.Module]:
    """The final norm of a meta model: its name and module. Raises InputError unless there is exactly one."""
    norms = final_norms(model)
    if len(norms) != 1:
        raise InputError(f"model.llm.norm: a {type(model).__name__} has {len(norms)} final norms, needed: one")
    return norms[0]


def final_norms(model: Any) -> list[tuple[str, nn.Module]]:
    """All modules of a model that may be its final norm, and their names."""
    if is_encoder(model):
        return norms_after(model, layer_list(model)[0])
    return [(name, module) for name, module in model.named_children() if "norm" in name]


def check_tensors(layer: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError unless `tensors` have the names and shapes of the layer's state dict."""
    wanted = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise InputError(f"{where}: has no tensor {name}")
        if name not in wanted:
            raise InputError(f"{where}: tensor {name} has no place in a {type(layer).__name__}")
        if (found := tuple(tensors[name].shape)) != wanted[name]:
            raise InputError(f"{where}: {name}: found shape {list(found)}, allowed: {list(wanted[name])}")


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError naming a tensor with infinite values or NaN. Checked once, since the store has the sha256."""
    for name, tensor in tensors.items():
        if tensor.itemsize == 1 and tensor.is_floating_point():
            tensor = tensor.float()  # torch compares no F8
        if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():  # needs no memory; NaN comes through
            raise InputError(f"{where}: {name} holds values that are not finite")


def loaded(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A meta model's module with `tensors` loaded as its weights, in float32."""
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return module


@torch.no_grad()
def initialized(model: Any, module: nn.Module) -> nn.Module:
    """A meta model's module with random weights, by the architecture's own initializer and torch's generator.

    For LLaMA and its relatives: matrices normal with the config's `initializer_range`, biases 0, norms 1.
    """
    for tensor in module.to_empty(device="cpu").parameters():
        tensor.fill_(torch.nan)
    initialize(model, module)
    for name, tensor in module.named_parameters():
        if tensor.isnan().any():
            kind = type(module).__name__
            raise InputError(f"model.llm.weights: found random, but transformers cannot draw {name} of a {kind}")
    return module


def shuffled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor with its entries permuted by torch's generator: the same statistics, nothing learned."""
    return {
        name: tensor.flatten()[torch.randperm(tensor.numel())].reshape(tensor.shape)
        for name, tensor in sorted(tensors.items())
    }


def rotary_embedding(model: Any) -> nn.Module:
    """The LLM's rotary position embedding with its frequencies computed, which a meta model's are not."""
    rotary: nn.Module = type(model.rotary_emb)(model.config)
    return rotary
