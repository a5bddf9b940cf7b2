"""How training scales: measured on this machine, and modelled for many GPUs.

Measured: optimizer steps of the default config by groups of processes (workers x threads) that share a gloo group and
take turns, so that their ratio is of one run; the sums over workers of small and large tensors; and the bytes that one
step exchanges under each engine. From the sums come latency and bandwidth, and from these and a step's computation the
model's prediction for the same groups. Modelled: 8, 64 and 512 GPUs, a machine that is assumed (docs/notes/scaling.md).
"""

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.runtime.batchnorm import BATCH_NORMS
from llm4seg.tools.memory_model import Sizes, llm_config, model_sizes
from llm4seg.training.engines.common import trainable_parameters
from llm4seg.training.trainer import assemble
from tests.benchmarks.block import LLAMA
from tests.benchmarks.default import default_config, parser, run
from tests.benchmarks.scaling_model import FABRICS, STAGES, Fabric, Load
from tests.benchmarks.scaling_worker import Group

LAYOUTS = ((1, 1), (1, 2), (2, 1), (4, 1))  # workers, threads of each
Layout = tuple[int, int, int]  # and the global batch
SMALL, LARGE = 1 << 10, 1 << 23  # bytes of sums over workers
ENGINES: dict[str | int, dict[str, Any]] = {
    stage: {"engine.name": "torch"} if stage == "torch" else {"engine.name": "deepspeed", "engine.zero": stage}
    for stage in STAGES
}
GPUS = (8, 64, 512)
IMAGES, BATCH = 8, 512  # a GPU, weak scaling; over all GPUs, strong scaling


def small(config: Config) -> tuple[int, int]:
    """Small exchanges in a step (two a BatchNorm, two of the loss, one to agree on what is next); trained tensors."""
    model = assemble(config, Prepared(config.paths.prepared))
    norms = sum(isinstance(module, BATCH_NORMS) for module in model.modules())
    return 2 * norms + 3, len(trainable_parameters(model))


class Measurements:
    """Groups of processes, asked in turns. One worker also computes the shares of two and four, and nothing else."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        batch = config.training.batch_size
        layouts = [*((*layout, batch) for layout in LAYOUTS), (1, 1, batch // 2), (1, 1, batch // 4)]
        self.groups = {layout: self._group(*layout[:2], **{"training.batch_size": layout[2]}) for layout in layouts}

    def _group(self, workers: int, threads: int, **changes: Any) -> Group:
        name = f"{workers}x{threads}" + "".join(f"-{value}" for value in changes.values())
        return Group(self._config.override(changes), workers, threads, self._folder / name)

    def steps(self, rounds: int, steps: int) -> dict[Layout, float]:
        """Seconds of a step: the median of rounds."""
        found: dict[Layout, list[float]] = {layout: [] for layout in self.groups}
        for _ in range(rounds + 1):  # the first warms up
            for layout, group in self.groups.items():
                found[layout].append(group.ask("train", steps))
        return {layout: statistics.median(took[1:]) for layout, took in found.items()}

    def sums(self) -> dict[int, tuple[float, float]]:
        """Seconds of a small and of a large sum, by the number of workers."""
        many = [group for group in self.groups.values() if group.workers > 1]
        return {group.workers: (group.ask("exchange", SMALL), group.ask("exchange", LARGE)) for group in many}

    def counted(self, stage: str | int) -> dict[str, list[int]]:
        """Exchanges of a step of two workers under an engine."""
        group = self._group(2, 1, **ENGINES[stage])
        found: dict[str, list[int]] = group.ask("count", 2)
        group.end()
        return found

    def end(self) -> None:
        for group in self.groups.values():
            group.end()


def fitted(sums: dict[int, tuple[float, float]]) -> Fabric:
    """This machine as a fabric: the latency of two and four workers, and the bandwidth of two."""
    (two, large), (four, _) = sums[2], sums[4]
    hop = max(0.0, four - two)
    return Fabric("here", 1 << 30, LARGE / (large - two), 0.0, two - hop, hop, 0.0)


def measured_table(steps: dict[Layout, float], batch: int) -> Table:
    table = Table(title=f"measured: batch {batch}, gloo")
    for column in ("workers x threads", "s a step", "images/s", "against 1 x 2"):
        table.add_column(column, justify="left" if "x threads" in column else "right")
    for workers, threads in LAYOUTS:
        took = steps[workers, threads, batch]
        ratio = steps[1, 2, batch] / took
        table.add_row(f"{workers} x {threads}", f"{took:.3f}", f"{batch / took:.1f}", f"{ratio:.2f}")
    return table


def fit_table(load: Load, here: Fabric, steps: dict[Layout, float], batch: int) -> Table:
    """What the model says of the measured groups; more workers than cores share them."""
    table = Table(
        title=f"fitted: latency {here.latency(2) * 1e6:.0f} and {here.latency(4) * 1e6:.0f} us (2, 4 workers), "
        f"{here.inside / 1e9:.2f} GB/s, {load.exchanges} small exchanges a step"
    )
    for column in ("workers x threads", "computes, s", "moves, s", "small, s", "model, s", "measured, s"):
        table.add_column(column, justify="left" if "x threads" in column else "right")
    for workers in (1, 2, 4):
        computes = steps[1, 1, batch // workers] * max(1, workers / (os.cpu_count() or 1))
        moves, small = load.moved(1, workers) / here.bandwidth(workers), load.small(1) * here.latency(workers)
        cells = (computes, moves, small, computes + moves + small, steps[workers, 1, batch])
        table.add_row(f"{workers} x 1", *(f"{cell:.3f}" for cell in cells))
    return table


def bytes_table(load: Load, counted: dict[str | int, dict[str, list[int]]]) -> Table:
    """Of two workers, each sends half of what it sums, twice, and all that it has of what it gathers."""
    table = Table(title="one step of two workers: exchanges, by torch's profiler, and what the model says")
    for column in ("engine", "sums", "gatherings", "model: in all", "MB sent", "model: MB sent"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for stage, kinds in counted.items():
        how = [kinds.get(kind, [0, 0]) for kind in ("all_reduce", "all_gather")]
        sent, said = 4 * sum(numbers for _, numbers in how) / 1e6, load.moved(stage, 2) / 1e6
        cells = (*(times for times, _ in how), load.small(stage), f"{sent:.2f}", f"{said:.2f}")
        table.add_row(_name(stage), *map(str, cells))
    return table


def _name(stage: str | int) -> str:
    return "torch" if stage == "torch" else f"ZeRO {stage}"


def large_sizes(config: Config) -> Sizes:
    """CMUNeXt as published on 256 x 256, with a layer of Llama-3.2-1B's shape."""
    config = config.preset("cmunext").override({"data.size": [256, 256], "model.llm.layer": 7})
    return model_sizes(config, LLAMA, channels=3, scheme=LabelScheme(("lesion",)))


def model_tables(config: Config, rate: float, floor: float) -> list[Table]:
    """Share of the ideal speed on many GPUs. The published CMUNeXt has as many layers as the default one."""
    load = Load.of(large_sizes(config), *small(config), rate, floor)
    tables = []
    for fabric in FABRICS:
        table = Table(
            title=f"modelled: {fabric.name}; {load.trained / 1e6:.1f} MB trained, {load.shared / 1e6:.0f} MB of LLM "
            f"matrices, {load.exchanges} small exchanges, {rate:g} images/s a GPU"
        )
        columns = [f"{what} {gpus}" for what in ("weak", "strong") for gpus in GPUS]
        for column in ("engine", "MB sent, 8", *columns):
            table.add_column(column, justify="left" if column == "engine" else "right")
        for stage in STAGES:
            weak = (load.weak(stage, gpus, IMAGES, fabric) for gpus in GPUS)
            strong = (load.strong(stage, gpus, BATCH, fabric) for gpus in GPUS)
            shown = (f"{share:.2f}" for share in (*weak, *strong))
            table.add_row(_name(stage), f"{load.moved(stage, 8) / 1e6:.1f}", *shown)
        tables.append(table)
    return tables


def measured(config: Config, rounds: int, steps: int) -> list[Table]:
    """The tables of what is measured here."""
    with tempfile.TemporaryDirectory() as name:
        here = Measurements(config, Path(name))
        batch = config.training.batch_size
        took, sums = here.steps(rounds, steps), here.sums()
        here.end()
        counted = {stage: here.counted(stage) for stage in STAGES}
    data = Prepared(config.paths.prepared)
    sizes = model_sizes(config, llm_config(config), data.channels, len(data.classes))
    load = Load.of(sizes, *small(config), batch / took[1, 1, batch], 0.0)
    return [
        measured_table(took, batch),
        fit_table(load, fitted(sums), took, batch),
        bytes_table(load, counted),
    ]


def benchmark(rounds: int, steps: int, rate: float, floor: float, model_only: bool) -> None:
    config, console = default_config(), Console(width=120)
    tables = [] if model_only else measured(config, rounds, steps)
    for table in [*tables, *model_tables(config, rate, floor)]:
        console.print(table)


def main() -> None:
    arguments = parser("scaling", __doc__, "--rounds 5")
    arguments.add_argument("--rounds", type=int, default=5, help="of measured steps (default: %(default)s)")
    arguments.add_argument("--steps", type=int, default=8, help="in a round (default: %(default)s)")
    arguments.add_argument("--rate", type=float, default=250, help="assumed images/s of a GPU (default: %(default)s)")
    arguments.add_argument(
        "--floor", type=float, default=0.02, help="s of a GPU's shortest step (default: %(default)s)"
    )
    arguments.add_argument("--model-only", action="store_true", help="measure nothing")
    given = arguments.parse_args()
    run(benchmark, given.rounds, given.steps, given.rate, given.floor, given.model_only)


if __name__ == "__main__":
    main()
