"""The run's control signal between two steps, on which all workers agree."""

import torch
import torch.distributed as dist

from llm4seg.runtime.collectives import all_reduce, world_size
from llm4seg.training.readback import Readback
from llm4seg.training.run import CONTINUE, Run


class Control:
    """Polls a run's control signal; of several workers the largest, on GPUs a poll late, so that none waits."""

    def __init__(self, run: Run, late: bool | None = None) -> None:
        """`late`: by default on CUDA alone."""
        self._run = run
        self._signal = torch.zeros((), dtype=torch.float64, device=run.device)
        self._largest = Readback[None](run.device, late)

    def poll(self) -> int:
        """The signal to follow, the same on every worker: a collective call."""
        signal = self._run.control_signal()
        if world_size() == 1:
            return signal
        self._signal.fill_(signal)
        for _, largest in self._largest.put(None, all_reduce(self._signal, dist.ReduceOp.MAX)):
            if largest != CONTINUE:
                self._largest.drop()  # what was sent meanwhile asks for the same again; if not, the next poll does
                return int(largest)
        return CONTINUE
