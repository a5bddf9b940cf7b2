"""`Readback`: numbers of steps that the host reads, on a GPU a step late, so that it need not wait."""

from collections import deque
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Tag = TypeVar("Tag")
SLOTS = 2  # a number that is being read, and that of the step after it


class Readback(Generic[Tag]):
    """A queue of scalar tensors with a tag each: of a step's number, the value comes out with the next step's.

    On CUDA a value is copied to pinned memory behind the step's work, and the host waits for that copy alone when the
    next step has been launched. On the CPU a value comes out at once.
    """

    def __init__(self, device: torch.device, late: bool | None = None) -> None:
        """`late`: by default on CUDA alone."""
        self._cuda = device.type == "cuda"
        self._late = self._cuda if late is None else late
        self._slots = [torch.zeros((), dtype=torch.float64, pin_memory=self._cuda) for _ in range(SLOTS)]
        self._events: list[Any] = [torch.cuda.Event() if self._cuda else None for _ in range(SLOTS)]
        self._waiting: deque[tuple[Tag, int]] = deque()
        self._count = 0

    def put(self, tag: Tag, number: Tensor) -> list[tuple[Tag, float]]:
        """Send a number; returns those, with their tags, that can be read without waiting for the device."""
        slot = self._count % SLOTS
        self._slots[slot].copy_(number, non_blocking=True)
        if self._cuda:
            self._events[slot].record()
        self._waiting.append((tag, slot))
        self._count += 1
        return self._read(left=1 if self._late else 0)

    def settle(self) -> list[tuple[Tag, float]]:
        """The numbers that are left, once the device has computed them."""
        return self._read(left=0)

    def drop(self) -> None:
        """Forget the numbers that are left."""
        self._waiting.clear()

    def _read(self, left: int) -> list[tuple[Tag, float]]:
        read = []
        while len(self._waiting) > left:
            tag, slot = self._waiting.popleft()
            if self._cuda:
                self._events[slot].synchronize()
            read.append((tag, float(self._slots[slot])))
        return read
