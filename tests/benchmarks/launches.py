"""Kernel launches of a training step, counted without a GPU, and what in a step would keep a CUDA graph from it.

First forward pass, loss and backward pass of the default network with one LLaMA layer on meta tensors, under the
settings of a training on a GPU: torch then takes the branches that it takes on CUDA. Then optimizer steps of a training
on the CPU: operations, tensors made of the host's data, reads of the device by the host, and what differs from one step
to the next. The number of operations depends on no size, so images, data and the LLM layer's widths are tiny.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid, build_model
from llm4seg.objectives.losses import build_loss
from llm4seg.training.engines.common import prepare
from llm4seg.training.run import LocalRun, start_group_of_one
from llm4seg.training.trainer import Trainer
from tests.benchmarks.default import PARAMS, parser
from tests.tiny import CHANGES, prepare_workspace
from tests.tiny_llm import tiny_store
from tests.torch_internals import HOST_WAITS, TorchDispatchMode, tree_map

CLASSES, BATCH, SIDE = 4, 4, 64
# calls of aten that launch nothing: they allocate, or look at memory in another way
VIEWS = frozenset(
    """_reshape_alias _unsafe_view alias as_strided detach diagonal empty empty_like empty_strided expand is_pinned
    is_same_size lift_fresh narrow new_empty new_empty_strided permute record_stream resize_ select set_ slice split
    split_with_sizes squeeze t transpose unbind unfold unsafe_split unsqueeze view view_as""".split()  # noqa: SIM905
)
HOST_TENSORS = ((torch, "as_tensor"), (torch, "tensor"), (torch, "from_numpy"), (Tensor, "new_tensor"))
BUDGET, STEP_BUDGET = 490, 520


class Trace(TorchDispatchMode):
    """Records the calls of aten: the phase that they are in, their names, and their arguments without values."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = "other"
        self.calls: list[tuple[str, str, str]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name.startswith("_record_function"):  # marks of torch's profiler
            return function(*args, **(kwargs or {}))
        self.calls.append((self.phase, name, str(tree_map(_described, (args, kwargs or {})))))
        return function(*args, **(kwargs or {}))

    def launches(self) -> Counter[tuple[str, str]]:
        """The number of calls that launch a kernel, by phase and name."""
        return Counter((phase, name) for phase, name, _ in self.calls if name not in VIEWS | HOST_WAITS)

    def syncs(self) -> Counter[str]:
        return Counter(name for _, name, _ in self.calls if name in HOST_WAITS)


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), tuple(value.stride()), str(value.dtype)
    return repr(value)


def default_network(config: Config, folder: Path) -> Hybrid:
    """The network of params.yaml with a LLaMA layer of small widths, for data of CLASSES classes in 2-D."""
    store: LayerStore = tiny_store(folder, layers=(1,))
    section = config.override({"model.llm.layer": 1}).model
    return build_model(section, store, spatial_dims=2, in_channels=1, out_channels=CLASSES + 1, seed=0)


@contextmanager
def gpu_settings(model: Hybrid, config: Config) -> Iterator[None]:
    """A model prepared as for a training on a GPU, whose settings of torch end with the context."""
    flags = torch.backends.cuda
    kernels = {name: getattr(flags, f"{name}_sdp_enabled")() for name in ("flash", "mem_efficient", "math", "cudnn")}
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    prepare(model, config.engine, torch.device("cuda"))
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        for name, enabled in kernels.items():
            getattr(flags, f"enable_{name}_sdp")(enabled)


def on_meta(model: Hybrid, loss: Any, trace: Trace, size: tuple[int, ...] = (SIDE, SIDE), channels: int = 1) -> None:
    """Trace a forward pass, the loss and a backward pass on the meta device, by part of the model."""
    model.to("meta").train()
    for name, child in model.named_children():
        child.register_forward_pre_hook(lambda module, inputs, name=name: setattr(trace, "phase", name))
    images = torch.empty(BATCH, channels, *size, device="meta")
    labels = torch.empty(BATCH, *size, device="meta", dtype=torch.int64)
    with patch("torch.autocast", lambda *args, **kwargs: nullcontext()):  # there is none on meta
        loss(model(images), labels).backward()  # what the first step alone makes, later ones find
        model.zero_grad()
        trace.phase = "other"
        with trace:
            logits = model(images)
            trace.phase = "loss"
            value = loss(logits, labels)
            trace.phase = "backward"
            value.backward()


def count_default(folder: Path, config: Config | None = None) -> Trace:
    """The trace of the default network's forward pass, loss and backward pass."""
    config, trace = config or Config.load(PARAMS), Trace()
    model = default_network(config, folder)
    with gpu_settings(model, config):
        on_meta(model, build_loss(config.training.loss), trace)
    return trace


@dataclass
class Steps:
    """Traces of consecutive optimizer steps, and what was found beside them."""

    traces: list[Trace] = field(default_factory=list)
    host_tensors: list[Counter[str]] = field(default_factory=list)
    addresses: list[dict[str, int]] = field(default_factory=list)

    def differing(self) -> list[str]:
        """The calls in which the last step differs from the one before it, and tensors that have moved in memory."""
        before, last = (trace.calls for trace in self.traces[-2:])
        found = [f"{one[1]}{one[2]}" for one, other in zip(before, last, strict=False) if one != other]
        old, new = self.addresses[-2:]
        moved = [f"address of {name}" for name in new if new[name] != old.get(name)]
        return found + [f"{len(before)} and {len(last)} calls"] * (len(before) != len(last)) + moved


def trace_steps(config: Config, folder: Path) -> Steps:
    """Trace the device's work of each optimizer step of the first epoch of a training: what a CUDA graph records."""
    trainer, found = Trainer(config, LocalRun(folder)), Steps()
    step = trainer.step

    def traced(place: int) -> None:
        trace = Trace()
        with counted_host_tensors() as host_tensors, trace:
            step(place)
        found.traces.append(trace)
        found.host_tensors.append(host_tensors)
        found.addresses.append(_addresses(trainer.engine))

    with patch.object(trainer, "step", traced):
        trainer.train_epoch(0)
    return found


@contextmanager
def counted_host_tensors() -> Iterator[Counter[str]]:
    """Counts the tensors that are made of data of the host, each of which a GPU would wait for."""
    found: Counter[str] = Counter()

    def counting(name: str, make: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> Any:
            found[name] += 1
            return make(*args, **kwargs)

        return made

    originals = [(holder, name, getattr(holder, name)) for holder, name in HOST_TENSORS]
    for holder, name, make in originals:
        setattr(holder, name, counting(name, make))
    try:
        yield found
    finally:
        for holder, name, make in originals:
            setattr(holder, name, make)


def _addresses(engine: Any) -> dict[str, int]:
    """The addresses of parameters, buffers and the optimizer's state."""
    model: nn.Module = engine._model
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    for number, state in enumerate(engine._optimizer.state.values()):
        tensors |= {f"{number}/{key}": one for key, one in state.items() if isinstance(one, Tensor)}
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


def default_step_config(root: Path) -> Config:
    """A tiny workspace's config with the network of params.yaml, for plain torch."""
    shape = {name: getattr(Config.load(PARAMS).model.cmunext, name) for name in ("dims", "depths", "kernels")}
    assert {f"model.cmunext.{name}" for name in shape} <= CHANGES.keys()
    network = {f"model.cmunext.{name}": list(value) for name, value in shape.items()}
    return prepare_workspace(root).override(network | {"engine.name": "torch", "training.batch_size": 2})


def show(title: str, trace: Trace, most: int = 12) -> None:
    """Print a trace's launches by phase, the most frequent names first."""
    launches = trace.launches()
    print(f"{title}: {launches.total()} launches of {len(trace.calls)} calls")
    for phase in dict.fromkeys(phase for phase, _ in launches):
        names = Counter({name: count for (one, name), count in launches.items() if one == phase})
        listed = ", ".join(f"{name} {count}" for name, count in names.most_common(most))
        print(f"  {phase:10s} {names.total():4d}  {listed}")


def benchmark() -> None:
    torch.set_num_threads(1)
    start_group_of_one(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        found = trace_steps(default_step_config(Path(name) / "workspace"), Path(name) / "run")
        show("an optimizer step on the CPU", found.traces[-1])
        host_tensors, syncs = dict(found.host_tensors[-1]), dict(found.traces[-1].syncs())
        print(f"  reads by the host: {syncs}; tensors of the host's: {host_tensors}")
        for difference in found.differing()[:5]:
            print(f"  differs from the step before: {difference[:160]}")
        trace = count_default(Path(name) / "llm")
    show("forward pass, loss and backward pass as on CUDA", trace)
    print(f"  at most {BUDGET}; of an optimizer step {STEP_BUDGET}")
    print(f"total {trace.launches().total()}")


def main() -> None:
    arguments: argparse.ArgumentParser = parser("launches", __doc__)
    arguments.parse_args()
    benchmark()


if __name__ == "__main__":
    main()
