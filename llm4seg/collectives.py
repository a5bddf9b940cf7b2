"""Sums over workers, through which gradients flow. Without a process group, or with one worker, they do nothing."""

import os
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def workers() -> int:
    """How many workers train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


PATIENCE = 0.02  # seconds to look for an exchange's end before sleeping until it


def finished(exchange: dist.Work, on: Tensor) -> None:
    """Wait for an exchange between workers.

    On a CPU a small one is done sooner than a sleeping core wakes up, several times, for the threads that bring it
    about; looking for its end, and giving way to them, keeps the core awake.
    """
    end = time.monotonic() + PATIENCE
    while on.is_cpu and not exchange.is_completed() and time.monotonic() < end:
        os.sched_yield()
    exchange.wait()


def add_up(mine: Tensor) -> Tensor:
    """Put the sum of all workers' tensors in the place of each."""
    finished(dist.all_reduce(mine, async_op=True), mine)
    return mine


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, mine: Tensor) -> Tensor:
        return add_up(mine.contiguous().clone())

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return add_up(gradients[0].contiguous().clone())


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
    finished(dist.all_reduce(largest, dist.ReduceOp.MAX, async_op=True), largest)
    return int(largest)
