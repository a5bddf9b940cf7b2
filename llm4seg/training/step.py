"""`Step`: the device work of a training step, which on a GPU is recorded as a CUDA graph once and then replayed.

A step of a small network is thousands of launches, each of which takes the host longer than the GPU. A replay is one,
with the same kernels on the same addresses in the same order, so with the same bits.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

import torch
import torch.distributed as dist
from torch import nn

from llm4seg.config import Config
from llm4seg.data.intensity_augment import CHANGES
from llm4seg.training.engines import Engine
from llm4seg.training.run import Run

WARM_UP = 3  # real steps before the recording: they allocate what stays, such as the optimizer's state
Body = Callable[[], None]


class Recorder(Protocol):
    """Runs and records bodies."""

    def run(self, body: Body) -> None:
        """Run a body as it is, where it will be recorded."""

    def record(self, body: Body) -> Body:
        """Record a body without running it; returns what replays it. Bodies are replayed in the order of recording."""


@cache
def recording_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream to record on, the same for all trainings of a process: cuBLAS keeps 32 MB for each."""
    return torch.cuda.Stream(device)


class CudaRecorder:
    """CUDA graphs in one memory pool, recorded on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._stream = recording_stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, body: Body) -> None:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            body()
        current.wait_stream(self._stream)

    def record(self, body: Body) -> Body:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # other threads may copy batches and watch NCCL meanwhile
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                body()
        finally:
            torch.cuda.set_stream(current)  # which a recording that failed leaves changed
        return graph.replay


class Step:
    """The bodies of a step, one for each micro-batch, called in turn. They take nothing from the host.

    With a recorder, the first steps run as they are, then each body is recorded, and from then on replayed. Where a
    recording fails, all steps run as they are, and a line says so.
    """

    def __init__(
        self,
        bodies: Sequence[Body],
        parameters: Sequence[nn.Parameter],
        recorder: Recorder | None,
        log: Callable[[str], None],
    ) -> None:
        self._bodies, self._parameters, self._recorder, self._log = bodies, parameters, recorder, log
        self._replays: list[Body] = []
        self._warm_up = WARM_UP * len(bodies)

    @property
    def recorded(self) -> bool:
        """Whether steps are replayed."""
        return len(self._replays) == len(self._bodies)

    def __call__(self, place: int) -> None:
        """Run the body at a place, or what was recorded of it."""
        if self._recorder is not None and self._warm_up > 0:
            self._warm_up -= 1
            self._recorder.run(self._bodies[place])
            return
        if self._recorder is not None and len(self._replays) == place:
            self._record(self._recorder, place)
        if self._recorder is None:
            self._bodies[place]()
        else:
            self._replays[place]()

    def _record(self, recorder: Recorder, place: int) -> None:
        gradients = [parameter.grad for parameter in self._parameters]
        try:
            self._replays.append(recorder.record(self._bodies[place]))
        except Exception as error:  # whatever torch, CUDA or a network's module raises there, steps can do without
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient  # those of the recording were never computed
            self._recorder, self._replays = None, []
            first = error.__context__ or error  # the end of a recording that failed raises another one
            reason = (str(first).strip() or type(first).__name__).splitlines()[0]
            self._log(f"engine.graph: auto is off: recording a step failed: {reason}")


def recorder_for(config: Config, engine: Engine, run: Run) -> Recorder | None:
    """The recorder for a run's steps; None on the CPU and where steps cannot be recorded, which rank 0 logs."""
    if run.device.type != "cuda" or config.engine.graph == "off":
        return None
    if reason := graph_refusal(config, engine, run.world_size):
        if run.rank == 0:
            run.log(f"engine.graph: auto is off: {reason}")
        return None
    return CudaRecorder(run.device)


def graph_refusal(config: Config, engine: Engine, workers: int) -> str | None:
    """Why steps cannot be recorded on a GPU, if they cannot."""
    if reason := engine.graph_refusal():
        return reason
    if not engine.capturable:
        return "the engine's steps need the host"
    if by_chance := [name for name in CHANGES if getattr(config.training.augment, name)]:
        return f"training.augment.{by_chance[0]} changes some images and not others, by the host"
    if config.cluster.fewest != config.cluster.most:
        return "cluster.workers is a range"
    if workers > 1 and dist.get_backend() != "nccl":
        return f"workers communicate by {dist.get_backend()}"
    return None
