"""Vision transformers of transformers: encoders of images, whose layers attend to all patches.

Their layers see the block's tokens in the place of an image's patches. What is at their own input (the patch embedding,
learned positions, class and register tokens) is no part of a layer, and not used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.utils.errors import InputError

LAYER_LISTS = ("layer", "layers")


def is_encoder(model: Any) -> bool:
    """Whether a model of transformers reads images; all others here read text."""
    found: bool = getattr(model, "main_input_name", None) == "pixel_values"
    return found


def encoder_layers(model: Any) -> list[tuple[str, nn.ModuleList]]:
    """The paths and modules of all lists in a model that hold as many layers as its config says."""
    count = getattr(model.config, "num_hidden_layers", None)
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in LAYER_LISTS and len(module) == count
    ]


def norms_after(model: Any, path: str) -> list[tuple[str, nn.Module]]:
    """Norms of an encoder behind its layers, which are at `path`: CLIP has one before them, too."""
    names = [name for name, _ in model.named_children()]
    later = names[names.index(path.partition(".")[0]) + 1 :]
    return [(name, model.get_submodule(name)) for name in later if "norm" in name]


@dataclass(frozen=True)
class PatchRotation:
    """DINOv3's rotary positions (Simeoni et al., arXiv 2508.10104): of a patch's row and column, each -1 to 1.

    Positions are those of the patches' centers, so a grid's size changes how far apart neighbors are.
    """

    theta: float
    head_dim: int

    @classmethod
    def of(cls, config: Any) -> "PatchRotation | None":
        """The rotation by an encoder's config; None where it has no `rope_theta`."""
        theta = getattr(config, "rope_theta", None)
        if theta is None:
            return None
        return cls(theta, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

    def __call__(self, grid: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, head_dim) of a grid's tokens in raster order, in the dtype and on the device of `like`.

        Raises InputError for a grid of other than two axes.
        """
        if len(grid) != 2:
            raise InputError(
                "model.llm.position: found native, allowed: none, since this encoder rotates by rows and columns, "
                f"and the grid has {len(grid)} axes"
            )
        arange = partial(torch.arange, dtype=torch.float32, device=like.device)
        centers = [2 * (arange(0.5, side) / side) - 1 for side in grid]
        frequencies = 1 / self.theta ** arange(0, 1, 4 / self.head_dim)
        places_TA = torch.stack(torch.meshgrid(*centers, indexing="ij"), dim=-1).flatten(0, 1)
        angles = (2 * math.pi * places_TA[:, :, None] * frequencies).flatten(1).tile(2)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)
