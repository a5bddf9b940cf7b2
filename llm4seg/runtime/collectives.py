"""Collectives over workers: torch.distributed's. Without a process group, or with one worker, they do nothing."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of workers that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce(tensor: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    """The sum, or another reduction, of all workers' tensors: a new tensor, the same bits on each; no gradients flow.

    Sums of the same tensors over the same number of workers are the same bits wherever the workers are; over another
    number of workers they are summed in another order.
    """
    if world_size() == 1:
        return tensor
    reduced = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(reduced, operation)
    return reduced


def all_reduce_max(number: int, device: torch.device) -> int:
    """The largest of all workers' numbers."""
    if world_size() == 1:
        return number
    return int(all_reduce(torch.tensor(number, device=device), dist.ReduceOp.MAX))


class _AllReduceSum(torch.autograd.Function):
    # torch.distributed.nn.functional.all_reduce does the same, but torch 2.13 warns at each call that it is
    # deprecated, in favor of a private function
    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return all_reduce(tensor)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return all_reduce(gradients[0])


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of all workers' tensors, the same on each of them; gradients flow.

    The gradient is that of the sum of all workers' results computed from it. Engines average gradients over workers, so
    that a loss computed from totals has the gradient of one worker with the whole batch.
    """
    return tensor if world_size() == 1 else _AllReduceSum.apply(tensor)
