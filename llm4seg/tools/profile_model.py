"""Profile of a network: parameters, floating-point operations, the bottleneck's grid, images/s."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid, build_model
from llm4seg.models.hybrid import parameter_counts
from llm4seg.runtime.device import default_device
from llm4seg.tools.torch_internals import FakeTensorMode
from llm4seg.training.engines.common import prepare

STEPS = 3  # measured for images/s, after one that is not


@dataclass(frozen=True)
class Cost:
    """Parameters, and floating-point operations of one image's forward pass (see `count_flops`)."""

    trained: int
    frozen: int
    flops: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.trained + other.trained, self.frozen + other.frozen, self.flops + other.flops)


@dataclass(frozen=True)
class Description:
    """The input of the bottleneck for images of one size, and the costs of the network around it and of itself."""

    strides: tuple[int, ...]  # along each axis
    channels: int
    tokens: int
    network: Cost
    bottleneck: Cost


def describe(config: Config, store: LayerStore | None, in_channels: int, out_channels: int) -> Description:
    """Profile the model of the `model` section on images of the config's `input_size`."""
    model = _model(config, store, in_channels, out_channels)
    bottleneck, model.bottleneck = model.bottleneck, nn.Identity()
    seen: list[torch.Size] = []

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.append(inputs[0].shape)

    model.bottleneck.register_forward_pre_hook(note)
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)  # shapes alone, since a large volume would take minutes
    network = cost(model, (1, in_channels, *config.input_size), fake_mode)
    (shape,) = seen
    tokens = prod(side // config.model.llm.pool for side in shape[2:])
    return Description(model.strides, shape[1], tokens, network, cost(bottleneck, shape))


def _model(config: Config, store: LayerStore | None, in_channels: int, out_channels: int) -> Hybrid:
    torch.manual_seed(config.training.seed)
    return build_model(
        config.model,
        store,
        spatial_dims=config.data.spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        seed=config.training.seed,
        size=config.input_size,
    )


def training_speed(config: Config, store: LayerStore | None, in_channels: int, out_channels: int) -> float:
    """Images a second of forward and backward passes in training, by the fastest of STEPS.

    The model of the `model` section on batches of `training.batch_size` images, on a GPU if there is one, with the
    settings of `engine`; without a loss and an optimizer, and on a GPU without a graph of the step.
    """
    device, batch = default_device(config.cluster), config.training.batch_size
    model = _model(config, store, in_channels, out_channels)
    prepare(model, config.engine, device)
    model.to(device).train()
    images_NCS = torch.randn(batch, in_channels, *config.input_size, device=device)
    took = []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        model(images_NCS).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - began)
        model.zero_grad()
    return batch / min(took[1:])


def cost(module: nn.Module, shape: Sequence[int], fake_mode: AbstractContextManager[object] | None = None) -> Cost:
    """The cost of a module on an input of this shape."""
    with fake_mode or nullcontext():
        return Cost(flops=count_flops(module, shape), **parameter_counts(module))


def count_flops(module: nn.Module, shape: Sequence[int]) -> int:
    """Floating-point operations of a forward pass; a multiply-add counts as two.

    Attention runs as matrix products, since fused kernels are not counted.
    """
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(torch.zeros(*shape))
    return counter.get_total_flops()
