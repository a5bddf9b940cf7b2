"""The optimizer and its learning-rate schedule, stepped with every optimizer step."""

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, PolynomialLR

from llm4seg.config.schema import OptimizerConfig


def build_optimizer(parameters: Iterable[nn.Parameter], section: OptimizerConfig) -> Optimizer:
    """The optimizer of the `optimizer` section over `parameters`, weight decay on all of them as in the paper."""
    match section.name:
        case "adamw":
            return AdamW(parameters, lr=section.lr, weight_decay=section.weight_decay)
        case "sgd":
            return SGD(
                parameters,
                lr=section.lr,
                momentum=section.momentum,
                nesterov=section.nesterov,
                weight_decay=section.weight_decay,
            )


def build_schedule(optimizer: Optimizer, section: OptimizerConfig, steps: int) -> LRScheduler:
    """The schedule of the `optimizer` section over `steps` optimizer steps; `lr` is its highest value."""
    match section.schedule:
        case "onecycle":
            return OneCycleLR(optimizer, max_lr=section.lr, total_steps=steps, cycle_momentum=False)
        case "poly":
            return PolynomialLR(optimizer, total_iters=steps, power=0.9)
        case "constant":
            return LambdaLR(optimizer, lambda step: 1.0)
