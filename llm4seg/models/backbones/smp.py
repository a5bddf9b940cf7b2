"""Networks of segmentation_models_pytorch, with its own encoders or timm's.

An optional extra: it needs torchvision, whose wheels on PyPI need the CUDA build of torch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.config.schema.backbones import SMP
from llm4seg.models.backbones.parts import Backbone
from llm4seg.models.backbones.registry import IOShape, register
from llm4seg.utils.errors import InputError


class SMPDecoder(nn.Module):
    """The decoder, which takes all feature maps at once, and the segmentation head."""

    def __init__(self, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = head

    def forward(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.decoder(features))
        return logits


@register(SMP)
def build(section: SMP, shape: IOShape) -> Backbone:
    """The network that `model.smp` names. Raises InputError where the library is missing or rejects the choice."""
    network = _network(section, shape.in_channels, shape.out_channels)
    _freeze_unused(network, section, shape.in_channels, shape.size or [2 * section.stride] * 2)
    decoder = SMPDecoder(network.decoder, network.segmentation_head)
    return Backbone(network.encoder, decoder, network.encoder.out_channels[-1])


def _network(section: SMP, in_channels: int, out_channels: int) -> Any:
    try:
        import segmentation_models_pytorch as library
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision beside the CPU build of torch
        raise InputError(
            f"model.backbone: smp needs segmentation_models_pytorch, which cannot be imported ({error}): "
            "pip install -e '.[smp]' beside the CUDA build of torch"
        ) from None
    of_timm = section.encoder.startswith("tu-")  # its name includes the weights
    try:
        return library.create_model(
            section.architecture.replace("+", "plus"),
            section.encoder,
            encoder_weights=True if of_timm and section.weights else section.weights,
            in_channels=in_channels,
            classes=out_channels,
        )
    except OSError as error:
        raise InputError(f"model.smp.weights: {section.weights} cannot be fetched, allowed: null ({error})") from None
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"model.smp: {section.architecture} with {section.encoder}: {error.args[0]}") from None


def _freeze_unused(network: Any, section: SMP, in_channels: int, size: Sequence[int]) -> None:
    """Freeze parameters that an encoder does not use: without a gradient they would stop distributed training."""
    network.eval()  # BatchNorm keeps its statistics
    try:
        logits = network(torch.zeros(1, in_channels, *size))
    except (AssertionError, RuntimeError) as error:
        raise InputError(f"model.smp.encoder: {section.encoder} refuses images of {[*size]}: {error}") from None
    logits.sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    network.train()
