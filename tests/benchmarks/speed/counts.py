"""What is counted beside the time: launches, reads by the host, page faults, memory."""

import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.torch_internals import HOST_WAITS, TorchDispatchMode, is_view

LAUNCHES = {"cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch"}
SYNCS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"}
# calls that are no views by their schema and yet launch nothing
NOTHING = {
    "_reshape_alias",
    "_unsafe_view",
    "is_pinned",
    "is_same_size",
    "lift_fresh",
    "record_stream",
    "resize_",
    "set_",
}


class Operations(TorchDispatchMode):
    """Counts calls of aten on the CPU: those that would launch a kernel on a GPU, and those that would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter(launches=0, syncs=0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in HOST_WAITS:
            self.counts["syncs"] += 1
        elif launches(function):
            self.counts["launches"] += 1
        return function(*args, **(kwargs or {}))


def launches(function: Any) -> bool:
    """Whether a call of aten computes: it is no view, allocates more than memory, and is not of the host alone."""
    name = function.overloadpacket.__name__
    if name in NOTHING or "empty" in name:
        return False
    return not is_view(function)


@contextmanager
def counted(device: torch.device) -> Iterator[Counter[str]]:
    """Counts `launches` and `syncs` until the context ends: of CUDA's runtime, on the CPU of aten.

    On the CPU, a copy to the CPU is no call of aten: those by `Tensor.cpu` are counted as reads, others are not seen.
    """
    found: Counter[str] = Counter()
    if device.type == "cuda":
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            yield found
        for event in profiled.key_averages():
            found["launches"] += event.count * (event.key in LAUNCHES)
            found["syncs"] += event.count * (event.key in SYNCS)
        return
    original = Tensor.cpu

    def to_host(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found["syncs"] += 1
        return original(tensor, *args, **kwargs)

    with patch.object(Tensor, "cpu", to_host), Operations() as operations:
        yield found
    found.update(operations.counts)


def page_faults() -> int:
    """Page faults of this process so far that read nothing from a disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def peak_mb(device: torch.device) -> float:
    """The most memory that was allocated on a GPU; on the CPU, the most that this process has had in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
