"""What workers exchange: every worker gets the same, bit for bit, and gradients are those of the whole."""

import warnings
from typing import Any

import torch

from llm4seg.runtime.collectives import all_reduce, all_reduce_max, all_reduce_sum
from tests.worker_group import on_group

CPU = torch.device("cpu")
TENSORS = ("vector", "matrix", "large", "scalar", "double")


def exchanges(rank: int) -> dict[str, Any]:
    """Each tensor of this worker, two sums of it over workers, and the tensor after them."""
    torch.manual_seed(rank)
    tensors = {"vector": torch.randn(7), "matrix": torch.randn(4, 6).t()[1:], "large": torch.randn(100_000)}
    tensors |= {"scalar": torch.tensor(rank), "double": torch.randn(3, dtype=torch.float64)}
    found: dict[str, Any] = {"max": all_reduce_max(rank * 5, CPU)}
    for name, tensor in tensors.items():
        found[name] = [tensor.clone(), all_reduce(tensor), all_reduce(tensor), tensor]
    return found


def test_every_worker_gets_the_same_sum_each_time() -> None:
    everyones = on_group(3, exchanges)
    for name in TENSORS:
        whole, first_sum = torch.stack([one[name][0] for one in everyones]).sum(0), everyones[0][name][1]
        torch.testing.assert_close(first_sum, whole)
        for one in everyones:
            own, total, again, own_after = one[name]
            assert torch.equal(total, first_sum)
            assert torch.equal(again, total)
            assert torch.equal(own_after, own), "a sum changed its input"
    assert [one["max"] for one in everyones] == [10, 10, 10]


def gradient_of_a_total(rank: int) -> tuple[float, bool]:
    """loss = (a + b)^2 computed on both from the total; engines take the mean of what each gets."""
    mine = torch.tensor([1.0, 2.0][rank], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # training calls this in every step
        all_reduce_sum(mine).square().backward()
    assert mine.grad is not None
    return float(mine.grad), all_reduce(mine).requires_grad


def test_the_gradient_of_a_total_is_that_of_the_whole_times_the_workers() -> None:
    """d (a + b)^2 / da = 6, from each of two workers; the mean over them of what parameters get is that of one."""
    assert on_group(2, gradient_of_a_total) == [(12.0, False), (12.0, False)]


def test_without_a_group_they_do_nothing() -> None:
    mine = torch.tensor([1.0, 2.0], requires_grad=True)
    assert all_reduce(mine) is mine
    assert all_reduce_sum(mine) is mine
    assert all_reduce_max(3, CPU) == 3
