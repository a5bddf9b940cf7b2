"""Prefetching: one batch is read ahead in a thread, and copied to the device.

The thread uses no random numbers and keeps the order of the batches, so it changes no result.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(read: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """The results of `read` for each item, the next one read in a thread meanwhile; exceptions are raised in order.

    Close the iterator when the loop ends early, so that the thread ends.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
        coming: Future[Result] | None = None
        for item in items:
            ahead = thread.submit(read, item)
            if coming is not None:
                yield coming.result()
            coming = ahead
        if coming is not None:
            yield coming.result()


def read_on_demand(read: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """The results of `read` without prefetching, for a CPU: a second thread would take cores from the step."""
    yield from map(read, items)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor copied to a device; to a GPU from pinned memory, so that the host does not wait."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
