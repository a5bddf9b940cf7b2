"""Tiny vision transformers for tests: real transformers models with random weights, and what passes their layers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store
from tests.tiny_llm import recorded, save_llm, section

PATCH, WIDTH = 8, 64
SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 4 * PATCH,
    "patch_size": PATCH,
}


def tiny_encoder(kind: str = "vit", seed: int = 0, **changes: Any) -> Any:
    """A transformers model whose every weight, norms included, differs from where its initializer would put it."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **{**SHAPE, **changes})).float().eval()
    return varied(model)


def varied(model: Any) -> Any:
    """A model with noise on every weight, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def encoder_store(root: Path, kind: str = "vit", layers: tuple[int, ...] = (1, 2), **changes: Any) -> LayerStore:
    """A filled layer store of a tiny vision transformer."""
    source = save_llm(root / "source", tiny_encoder(kind, **changes))
    return fill_store(root / "store", section(source), layers, root / "cache")


def layers_of(model: Any) -> nn.ModuleList:
    """A vision transformer's layers, by their classes: all modules of the one with `Layer` at its end, in order."""
    return nn.ModuleList(module for module in model.modules() if type(module).__name__.endswith("Layer"))


def through_encoder(model: Any, grid: tuple[int, int] = (4, 4)) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The inputs and outputs of each layer in a forward pass of two images of a grid of patches, and the output."""
    size = [side * PATCH for side in grid]
    images_NCHW = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    return recorded(layers_of(model), lambda: model(images_NCHW)[0])
