"""What the forward and backward pass of a network costs on the CPU, by operation, and with parts of it done otherwise.

The networks of params.yaml without an LLM layer, on batches of the default size. Variants of CMUNeXt take turns with it
and `unet` in one process; the processor's time of the fastest round counts. Some compute the same, some leave something
out, to show what it costs. For the allocator's settings, set them before: `--settings` prints them.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from llm4seg.config import Config
from llm4seg.models import build_model
from tests.benchmarks.default import PARAMS, parser, run
from tests.benchmarks.speed.ways import MEMORY

CLASSES, SHOWN = 5, 8


class Pointwise(nn.Conv2d):
    """A 1x1 convolution as a matrix product over channels_last."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        rows = functional.linear(images_NCHW.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias)
        return rows.permute(0, 3, 1, 2)


def pointwise(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.groups == 1:
            module.__class__ = Pointwise


def without(*kinds: type[nn.Module]) -> Callable[[nn.Module], None]:
    """Replaces all modules of these kinds by the identity."""

    def change(model: nn.Module) -> None:
        for parent in model.modules():
            for name, child in parent.named_children():
                if isinstance(child, kinds):
                    setattr(parent, name, nn.Identity())

    return change


def tanh_gelu(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def small_depthwise(model: nn.Module) -> None:
    """Depth-wise kernels of 7 x 7 cut to 3 x 3."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.weight = nn.Parameter(module.weight[..., :3, :3].clone())
            module.padding = (1, 1)


@dataclass
class Variant:
    backbone: str = "cmunext"
    change: Callable[[nn.Module], object] = lambda model: None
    channels_last: bool = True
    dtype: torch.dtype = torch.float32  # bfloat16: autocast
    best: float = float("inf")  # seconds of the processor
    wall: float = float("inf")
    faults: list[int] = field(default_factory=list)


def variants() -> dict[str, Variant]:
    weights_last = lambda model: model.to(memory_format=torch.channels_last)  # noqa: E731
    return {
        "cmunext": Variant(),
        "unet": Variant("unet"),
        "unet, bf16": Variant("unet", dtype=torch.bfloat16),
        "bf16": Variant(dtype=torch.bfloat16),
        "contiguous": Variant(channels_last=False),
        "weights in channels_last, too": Variant(change=weights_last),
        "1x1 convolutions by F.linear": Variant(change=pointwise),
        "both": Variant(change=lambda model: (pointwise(model), model.to(memory_format=torch.channels_last))),
        "GELU by tanh (other numbers)": Variant(change=tanh_gelu),
        "without GELU (another network)": Variant(change=without(nn.GELU)),
        "without BatchNorm (another network)": Variant(change=without(nn.BatchNorm2d)),
        "without both (another network)": Variant(change=without(nn.GELU, nn.BatchNorm2d)),
        "depth-wise 3x3 (another network)": Variant(change=small_depthwise),
    }


def build(variant: Variant, config: Config, batch: int) -> Callable[[], None]:
    """A function that passes a batch forward and backward."""
    torch.manual_seed(0)
    section = config.override({"model.backbone": variant.backbone, "model.bottleneck": "identity"}).model
    model = build_model(section, None, spatial_dims=2, in_channels=1, out_channels=CLASSES, seed=0).train()
    variant.change(model)
    images = torch.randn(batch, 1, *config.data.size)
    if variant.channels_last:
        images = torch.empty_like(images, memory_format=torch.channels_last).copy_(images)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.dtype == torch.bfloat16):
            logits = model(images)
        logits.float().square().mean().backward()
        model.zero_grad()

    return step


def measure(found: dict[str, Variant], steps: dict[str, Callable[[], None]], rounds: int) -> None:
    for number in range(rounds + 2):
        for name, step in steps.items():
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            processor, wall = time.process_time(), time.perf_counter()
            step()
            if number < 2:
                continue
            variant = found[name]
            variant.best = min(variant.best, time.process_time() - processor)
            variant.wall = min(variant.wall, time.perf_counter() - wall)
            variant.faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)


def operations(step: Callable[[], None]) -> list[tuple[str, float, int]]:
    """The operations that take longest: names, shares of all their own time, and calls of a step."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(3):
            step()
    events = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [(event.key, event.self_cpu_time_total / total, event.count // 3) for event in events[:SHOWN]]


def benchmark(batch: int, rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    config, found, console = Config.load(PARAMS), variants(), Console(width=110, highlight=False)
    steps = {name: build(variant, config, batch) for name, variant in found.items()}
    measure(found, steps, rounds)
    sides = " x ".join(map(str, config.data.size))
    shown = Table(title=f"forward and backward pass of {batch} images of {sides}, threads: {threads}")
    for heading in ("", "processor, ms", "of cmunext", "wall, ms", "page faults"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, one in found.items():
        faults = sorted(one.faults)[len(one.faults) // 2]
        cells = (
            f"{1e3 * one.best:.0f}",
            f"{one.best / found['cmunext'].best:.2f}",
            f"{1e3 * one.wall:.0f}",
            f"{faults}",
        )
        shown.add_row(name, *cells)
    console.print(shown)
    for name in ("cmunext", "unet"):
        shares = ", ".join(f"{key} {100 * share:.0f} % ({calls})" for key, share, calls in operations(steps[name]))
        console.print(f"{name}: {shares}")


def main() -> None:
    options = parser("network_cost", __doc__, "--threads 2")
    options.add_argument("--batch", type=int, default=4, help="(default: %(default)s)")
    options.add_argument("--rounds", type=int, default=8, help="(default: %(default)s)")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    options.add_argument("--settings", action="store_true", help="print the allocator's settings, and no more")
    given = options.parse_args()
    if given.settings:
        print(" ".join(f"{name}={value}" for name, value in MEMORY.items()))
        return
    run(benchmark, given.batch, given.rounds, given.threads)


if __name__ == "__main__":
    main()
