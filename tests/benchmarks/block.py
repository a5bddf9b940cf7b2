"""What LLM layers cost in each dtype and way of training: bytes, errors against float32, time, memory of a step.

On the default LLM's own layer (out of its package: the package index is needed once), or on a randomly initialized one
of Llama-3.2-1B's shape.

First table: errors are those of what a layer adds to its input, and of the gradient through that, on standard normal
tokens; times are processor time of a forward pass / of both passes, on one thread, as shares of float32's, each the
best of some interleaved rounds. Second table: what autograd keeps between the passes, each storage counted once and
weights not at all / the most that is allocated at a time in both passes, beyond the weights.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # no messages of the profiler; before torch is imported

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from llm4seg.config import Config
from llm4seg.config.schema import Block
from llm4seg.llm.architecture import meta_model
from llm4seg.llm.store import CONFIG, LayerStore
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.llm_sources.supported import check_supported
from llm4seg.models.bottleneck.layers import LLMLayers
from llm4seg.utils.files import write_json

BATCH = 4
DTYPES = ("fp32", "bf16", "int8", "int4")
TOKENS = (64, 256, 1024)
WAYS: dict[str, dict[str, Any]] = {
    "frozen": {},
    "frozen, bf16": {"dtype": "bf16"},
    "frozen, int8": {"dtype": "int8"},
    "frozen, int4": {"dtype": "int4"},
    "LoRA": {"training": "lora"},
    "full": {"training": "full"},
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "vocab_size": 128256,
}
Build = Callable[..., LLMLayers]


def builder(shape: str, config: Config, folder: Path) -> Build:
    """What makes LLM layers of a shape, with changes to `model.llm`."""
    if shape == "default":
        middle = config.model.llm.layer[0]
        store, changes = fill_store(folder, config.llm, [middle - 1, middle, middle + 1], config.paths.cache), {}
    else:
        specs = check_supported(meta_model(LLAMA), range(LLAMA["num_hidden_layers"]))
        described = {"source": shape, "revision": None, "licence": None, "sha256": "", "layers": {}, "norm": None}
        described |= {"architecture": LLAMA, "layer_specs": {str(n): spec.plain() for n, spec in specs.items()}}
        write_json(folder / CONFIG, described)
        store, changes = LayerStore(folder), {"weights": "random"}

    def build(**more: Any) -> LLMLayers:
        torch.manual_seed(0)
        section = Block.model_validate({**config.model.llm.model_dump(), **changes, **more})
        return LLMLayers(section, store, seed=0).train()

    return build


def width(build: Build) -> int:
    return max(build().layers[0].input_layernorm.weight.shape)


def bytes_held(one: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*one.parameters(), *one.buffers()])


def added(one: LLMLayers, tokens_NTE: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer adds to its input, and the gradient through that of a fixed random direction."""
    tokens_NTE = tokens_NTE.clone().requires_grad_()
    out = one(tokens_NTE, (tokens_NTE.shape[1],)) - tokens_NTE
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return out.detach(), torch.autograd.grad(out, tokens_NTE, direction)[0]


def seconds(step: Callable[[], Any]) -> float:
    """Of processor time, on one thread: what else the machine does hardly matters."""
    began = time.process_time()
    step()
    return time.process_time() - began


def best_times(layers: dict[str, LLMLayers], tokens_NTE: Tensor, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of a forward pass and of both passes: for each dtype the best of interleaved rounds."""

    def forward(one: LLMLayers) -> None:
        with torch.no_grad():
            one(tokens_NTE, (tokens_NTE.shape[1],))

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in layers}
    for _ in range(rounds + 1):  # the first warms up
        for name, one in layers.items():
            times[name].append((seconds(lambda: forward(one)), seconds(lambda: added(one, tokens_NTE))))  # noqa: B023
    return {name: (min(f for f, _ in found[1:]), min(b for _, b in found[1:])) for name, found in times.items()}


def dtypes_table(shape: str, build: Build, rounds: int) -> Table:
    layers, hidden = {dtype: build(dtype=dtype) for dtype in DTYPES}, width(build)
    inputs = [torch.randn(BATCH, tokens, hidden) for tokens in TOKENS]
    times = [best_times(layers, tokens_NTE, rounds) for tokens_NTE in inputs]
    exact = added(layers["fp32"], inputs[1])
    table = Table(title=f"frozen layer: {shape}, batch {BATCH}; time of forward / of both passes")
    for column in ("dtype", "MB held", "error", "error of gradient", *(f"{tokens} tokens" for tokens in TOKENS)):
        table.add_column(column, justify="left" if column == "dtype" else "right")
    for dtype, one in layers.items():
        errors = [(ours - e).norm() / e.norm() for ours, e in zip(added(one, inputs[1]), exact, strict=True)]
        shares = [[mine / full for mine, full in zip(t[dtype], t["fp32"], strict=True)] for t in times]
        cells = [f"{bytes_held(one) / 1e6:.2f}", *(f"{float(error):.4f}" for error in errors)]
        table.add_row(dtype, *cells, *(f"{forward:.2f} / {both:.2f}" for forward, both in shares))
    return table


@contextmanager
def counting_kept(weights: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps for the backward pass, by address; weights left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*weights.parameters(), *weights.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def most_allocated(step: Callable[[], Any]) -> int:
    """The most bytes that a step has allocated at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as name:
        profiler.export_chrome_trace(f"{name}/trace.json")
        events = json.loads(Path(name, "trace.json").read_text())["traceEvents"]
    moments = sorted((one for one in events if one.get("name") == "[memory]"), key=lambda one: one["ts"])
    now = most = 0
    for moment in moments:
        now += moment["args"]["Bytes"]
        most = max(most, now)
    return most


def step_memory(one: LLMLayers, tokens: int, hidden: int) -> tuple[int, int]:
    """Bytes kept between the passes, and the most allocated in both."""
    tokens_NTE = torch.randn(BATCH, tokens, hidden, requires_grad=True)
    with counting_kept(one) as kept:
        one(tokens_NTE, (tokens,))
    most = most_allocated(lambda: one(tokens_NTE, (tokens,)).sum().backward())
    return sum(kept.values()), most


def memory_table(shape: str, build: Build) -> Table:
    hidden = width(build)
    table = Table(title=f"training step: {shape}, batch {BATCH}; MB kept / MB at most")
    for column in ("training", "checkpointing", *(f"{tokens} tokens" for tokens in TOKENS)):
        table.add_column(column, justify="right" if "tokens" in column else "left")
    middle = build()._section.layer[0]
    ways = WAYS | {"frozen, 3 layers": {"layer": [middle - 1, middle, middle + 1]}}
    for way, changes in ways.items():
        for checkpointing in (False, True):
            one = build(checkpointing=checkpointing, **changes)
            cells = (step_memory(one, tokens, hidden) for tokens in TOKENS)
            shown = (f"{kept / 1e6:.1f} / {most / 1e6:.1f}" for kept, most in cells)
            table.add_row(way, "yes" if checkpointing else "no", *shown)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.block",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.block --shape llama-3.2-1b",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", choices=["default", "llama-3.2-1b"], default="default")
    parser.add_argument("--rounds", type=int, default=10, help="of timing (default 10)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        config = Config.load(Path(__file__).parents[2] / "params.yaml")
        build = builder(arguments.shape, config, Path(name))
        console = Console(width=100)
        console.print(dtypes_table(arguments.shape, build, arguments.rounds))
        console.print(memory_table(arguments.shape, build))


if __name__ == "__main__":
    main()
