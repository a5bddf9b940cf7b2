"""A loader that reads one batch ahead in a thread and copies it to the device.

The thread draws nothing at random and batches come in the order asked for, so it changes no result.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Wanted = TypeVar("Wanted")
Read = TypeVar("Read")


def one_ahead(read: Callable[[Wanted], Read], wanted: Iterable[Wanted]) -> Generator[Read, None, None]:
    """What `read` gives for each, the next one being read meanwhile; its exceptions are raised where it is due.

    Close the iterator when leaving early, so that the thread ends.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
        coming: Future[Read] | None = None
        for one in wanted:
            ahead = thread.submit(read, one)
            if coming is not None:
                yield coming.result()
            coming = ahead
        if coming is not None:
            yield coming.result()


def when_wanted(read: Callable[[Wanted], Read], wanted: Iterable[Wanted]) -> Generator[Read, None, None]:
    """The same without reading ahead, for a CPU: a second thread's OpenMP threads would take cores from the step."""
    yield from map(read, wanted)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on its way to a device: from pinned memory, so that nobody waits while a GPU fetches it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
