"""LLM architectures of transformers, built from a config: all whose model has `layers` and `rotary_emb`.

`transformers` is imported where it is used, since that takes seconds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.llm.transformers_internals import decode_special_floats, initialize, set_attention
from llm4seg.utils.errors import InputError


def text_config(config: dict[str, Any]) -> Any:
    """The LLM's config as transformers' class; of a multimodal model, its text config.

    Raises InputError when transformers does not know the architecture, or rejects the values.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type", "")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise InputError(f"the LLM's config: model_type: found {kind!r}, which transformers does not know")
    with _config_errors(kind):
        return CONFIG_MAPPING[kind].from_dict(decode_special_floats(config)).get_text_config(decoder=True)


def meta_model(config: dict[str, Any]) -> Any:
    """The complete LLM on the meta device, without memory for its weights, in float32.

    It has all layers, so that each is built with its own index and its own entries of per-layer lists.
    Raises InputError when transformers cannot build it, or it lacks `layers` or rotary position embeddings.
    """
    from transformers import AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    text = text_config(config)
    if quantized := config.get("quantization_config"):
        raise unsupported(text, f"its weights are quantized ({quantized.get('quant_method')})")
    if type(text) not in MODEL_MAPPING:
        raise unsupported(text, "transformers builds no model of its text part alone")
    set_attention(text, None)  # transformers' default: the checkpoint's own may not be installed
    with _config_errors(text.model_type), torch.device("meta"):
        model = AutoModel.from_config(text, dtype=torch.float32)
    if not isinstance(getattr(model, "layers", None), nn.ModuleList):
        raise unsupported(text, "its model has no list of `layers`")
    if not isinstance(getattr(model, "rotary_emb", None), nn.Module):
        raise unsupported(text, "its model has no `rotary_emb`, so its positions are not rotary")
    return model


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
    norms = [(name, module) for name, module in model.named_children() if "norm" in name]
    if len(norms) != 1:
        raise InputError(f"model.llm.norm: a {type(model).__name__} has {len(norms)} final norms, needed: one")
    return norms[0]


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
