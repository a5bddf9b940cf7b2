"""Runs of a training that are watched and compared, on the CPU and on a GPU."""

from pathlib import Path

import torch

from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.run import STOP, LocalRun, Row

Result = tuple[list[Row], Checkpoint]  # a history, and the last checkpoint


class Noting(LocalRun):
    """Keeps log lines; stops after some polls."""

    def __init__(self, folder: Path, stop_after: int = 0, device: torch.device | None = None) -> None:
        super().__init__(folder, device)
        self.lines: list[str] = []
        self._left = stop_after

    def log(self, line: str) -> None:
        self.lines.append(line)

    def control_signal(self) -> int:
        self._left -= 1
        return STOP if self._left == 0 else super().control_signal()


def assert_equal(one: Result, other: Result) -> None:
    """The same rows, and the same bits of every tensor."""
    assert one[0] == other[0]
    for name in ("model", "optimizer", "weights"):
        tensors, others = getattr(one[1], name), getattr(other[1], name)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensor, others[key]) for key, tensor in tensors.items())
