"""Sums over workers, through which gradients flow. Without a process group, or with one worker, they do nothing."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def workers() -> int:
    """How many workers train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, mine: Tensor) -> Tensor:
        whole = mine.contiguous().clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole


def total(mine: Tensor) -> Tensor:
    """The sum of all workers' tensors, the same on each of them.

    What every worker computes from it gives each the gradient of the sum of all workers' results; engines take the mean
    over workers, so that a loss computed from totals has the gradient that one worker with the whole batch would find.
    """
    return mine if workers() == 1 else _Total.apply(mine)


def agreed(mine: int, device: torch.device) -> int:
    """The largest of all workers' numbers."""
    if workers() == 1:
        return mine
    largest = torch.tensor(mine, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)
