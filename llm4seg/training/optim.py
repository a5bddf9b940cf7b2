"""The optimizer and its learning-rate schedule, stepped with every optimizer step."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, PolynomialLR

from llm4seg.config.schema import OptimizerConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], section: OptimizerConfig, lr: Tensor | None = None
) -> Optimizer:
    """The optimizer of the `optimizer` section over `parameters`, weight decay on all of them as in the paper.

    `lr`: see `lr_tensor`; without it the learning rate is a number.
    """
    rate = section.lr if lr is None else lr
    match section.name:
        case "adamw":
            on_device = lr is not None and lr.device.type == "cuda"
            return AdamW(parameters, lr=rate, weight_decay=section.weight_decay, fused=True, capturable=on_device)
        case "sgd":
            return SGD(
                parameters,
                lr=rate,
                momentum=section.momentum,
                nesterov=section.nesterov,
                weight_decay=section.weight_decay,
                fused=True,
            )


def lr_tensor(section: OptimizerConfig, device: torch.device) -> Tensor:
    """A learning rate to be filled: an optimizer reads it on its device, so that its launches never change.

    In float32 on CUDA, as its fused optimizers read it; in float64, the number itself, on the CPU.
    """
    return torch.tensor(section.lr, dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device)


def build_schedule(optimizer: Optimizer, section: OptimizerConfig, steps: int) -> LRScheduler:
    """The schedule of the `optimizer` section over `steps` optimizer steps; `lr` is its highest value."""
    match section.schedule:
        case "onecycle":
            return OneCycleLR(optimizer, max_lr=section.lr, total_steps=steps, cycle_momentum=False)
        case "poly":
            return PolynomialLR(optimizer, total_iters=steps, power=0.9)
        case "constant":
            return LambdaLR(optimizer, lambda step: 1.0)


def build_host_schedule(section: OptimizerConfig, steps: int) -> LRScheduler:
    """The same schedule over an optimizer of nothing, for learning rates as numbers of the host.

    torch's own would compute with an optimizer's tensor, in its precision, and wait for its device.
    """
    nothing = SGD([nn.Parameter(torch.zeros(0))], lr=section.lr)
    schedule = build_schedule(nothing, section, steps)
    nothing.step()  # or torch would warn at the schedule's first step that it comes before any of the optimizer
    return schedule
