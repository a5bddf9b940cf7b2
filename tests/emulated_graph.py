"""A CUDA graph in miniature, on the CPU: what a body calls is recorded with its tensors and numbers, and called again.

As of a CUDA graph, a replay runs none of the body's Python: it sees the numbers and the addresses of the recording. So
whatever takes something new from the host in each step computes something else when it is replayed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.torch_internals import HOST_WAITS, TorchDispatchMode, tree_leaves


class Trace(TorchDispatchMode):
    """Runs operations and notes them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation.overloadpacket.__name__ in HOST_WAITS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {operation}")
        result = operation(*args, **(kwargs or {}))
        if operation.namespace != "profiler":
            self.calls.append((operation, args, kwargs or {}, result))
        return result


class EmulatedRecorder:
    """Records and replays bodies on the CPU; counts what it did."""

    def __init__(self) -> None:
        self.runs = self.recordings = self.replays = 0
        self.recording = False

    def run(self, body: Callable[[], None]) -> None:
        self.runs += 1
        body()

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        trace = Trace()
        self.recording = True
        try:
            with trace:
                body()
        finally:
            self.recording = False
        self.recordings += 1
        done = [True]  # a recording on a GPU computes nothing; this one has, what its first replay is to compute

        def replay() -> None:
            self.replays += 1
            if not done:
                _again(trace.calls)
            done.clear()

        return replay


@torch.no_grad()
def _again(calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]]) -> None:
    for operation, args, kwargs, result in calls:
        fresh = operation(*args, **kwargs)
        for old, new in zip(tree_leaves(result), tree_leaves(fresh), strict=True):
            if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                old.copy_(new)
