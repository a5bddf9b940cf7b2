"""How large a network is and what it costs: parameters, floating-point operations, and what the bottleneck sees."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore
from llm4seg.models import build_model


@dataclass(frozen=True)
class Description:
    """A model for images of one size. `flops`: of one image's forward pass; a multiply-add counts as two."""

    stride: int
    channels: int
    tokens: int
    trained: int
    frozen: int
    flops: int


def describe(config: Config, store: LayerStore | None, in_channels: int, out_channels: int) -> Description:
    """The model of the `model` section for images of `data.size`. Nothing is computed: tensors have shapes alone."""
    torch.manual_seed(config.training.seed)
    model = build_model(
        config.model,
        store,
        spatial_dims=config.data.spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        seed=config.training.seed,
        size=config.data.size,
    )
    counts, grids = model.parameter_counts(), list[torch.Size]()

    def note(bottleneck: nn.Module, inputs: tuple[Tensor]) -> None:
        grids.append(inputs[0].shape[1:])

    model.bottleneck.register_forward_pre_hook(note)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta").eval()(torch.empty(1, in_channels, *config.data.size, device="meta"))
    ((channels, *grid),) = grids
    tokens = prod(side // config.model.llm.pool for side in grid)
    return Description(model.stride, channels, tokens, flops=counter.get_total_flops(), **counts)
