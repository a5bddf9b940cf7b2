"""Sums over workers, through which gradients flow. Without a process group, or with one worker, they do nothing."""

import os
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from llm4seg.runtime import sockets


def world_size() -> int:
    """How many workers train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


PATIENCE = 0.02  # seconds to look for an exchange's end before sleeping until it


def all_gather(mine: Tensor) -> Tensor:
    """All workers' tensors (W, *shape), in the order of their ranks, through which no gradients flow."""
    everyones_WS = mine.new_empty(world_size(), *mine.shape)
    small = mine.is_cpu and mine.nbytes <= sockets.LARGEST
    if small and (lines := sockets.between_workers()):
        lines.gather(mine, everyones_WS)
    else:
        _finish(dist.all_gather(list(everyones_WS), mine.contiguous(), async_op=True), mine)
    return everyones_WS


def _finish(exchange: dist.Work, of: Tensor) -> None:
    """Wait for an exchange between workers.

    On a CPU a small one is done sooner than a sleeping core wakes up, several times, for the threads that bring it
    about; looking for its end, and giving way to them, keeps the core awake.
    """
    end = time.monotonic() + PATIENCE
    while of.is_cpu and not exchange.is_completed() and time.monotonic() < end:
        os.sched_yield()
    exchange.wait()


def all_reduce(mine: Tensor) -> Tensor:
    """The sum of all workers' tensors; on a CPU in the order of their ranks, so the same bits wherever they are."""
    return all_gather(mine).sum(0) if mine.is_cpu else _reduced(mine, dist.ReduceOp.SUM)


def _reduced(mine: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    everyones = mine.contiguous().clone()
    dist.all_reduce(everyones, operation)
    return everyones


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, mine: Tensor) -> Tensor:
        return all_reduce(mine)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return all_reduce(gradients[0])


def all_reduce_sum(mine: Tensor) -> Tensor:
    """The sum of all workers' tensors, the same on each of them.

    What every worker computes from it gives each the gradient of the sum of all workers' results; engines take the mean
    over workers, so that a loss computed from totals has the gradient that one worker with the whole batch would find.
    """
    return mine if world_size() == 1 else _Total.apply(mine)


def all_reduce_max(mine: int, device: torch.device) -> int:
    """The largest of all workers' numbers."""
    if world_size() == 1:
        return mine
    number = torch.tensor(mine, device=device)
    return int(all_gather(number).max() if number.is_cpu else _reduced(number, dist.ReduceOp.MAX))
