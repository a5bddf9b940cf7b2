"""Images a second in training: this project's `fit`, a loop written the naive way, and one like MONAI's tutorials.

All have the same network and batches, made-up images and a random LLM layer in the shape of the default's, so that
nothing is needed beside this checkout. Each way runs in a process of its own, the plain loops with torch's defaults;
the processes take turns, epoch by epoch, the first of which warms up. An epoch is training, validation and checkpoint:
images/s are of its training images over all of it. `times` are ratios of medians to the naive loop's: of epochs, of
training steps, and of the processor's time in a step, of all threads; `at best`, of the fastest epochs. The spread is
the slowest epoch less the fastest, in percent of the median. Launches, syncs (reads by the host) and page faults are
those of a training step: on CUDA as its runtime was called, on the CPU the operations that would launch a kernel and
the reads that aten sees. Memory is a GPU's, or the process's at its most.
"""

import platform
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from llm4seg.config import Config
from llm4seg.utils.files import write_json
from tests.benchmarks.default import PARAMS, parser, run
from tests.benchmarks.speed.compare import Settings, compare
from tests.benchmarks.speed.table import figures, table
from tests.benchmarks.speed.ways import WAYS, available
from tests.benchmarks.speed.workload import Workload

WIDTH = 170


def benchmark(given: Namespace) -> None:
    settings = Settings(given.device, given.threads, given.memory, given.rounds)
    ways, notes = available(given.ways, given.device)
    console, results = Console(width=WIDTH, highlight=False), []
    for workload in given.size:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            changes = workload.changes(root) | given.set
            workload.prepare(Config.load(PARAMS).override(changes))
            for deterministic in (False, True) if given.deterministic else (False,):
                chosen = replace(settings, deterministic=deterministic)
                folder = root / ("deterministic" if deterministic else "defaults")
                results.append(result := measure(ways, workload, changes, folder, chosen))
                console.print(table(heading(workload, chosen), result["ways"]))
                for note in [*notes, *result["notes"]]:
                    console.print(note, soft_wrap=True, markup=False)
    if given.json:
        write_json(given.json, {"machine": machine(given.device), "torch": torch.__version__, "results": results})
    if not all(result["ways"] for result in results):
        sys.exit("no way could be measured")


def measure(
    ways: list[str], workload: Workload, changes: dict[str, Any], folder: Path, settings: Settings
) -> dict[str, Any]:
    found, notes = compare(ways, workload, changes, folder, settings)
    rows = figures(found, workload.images, workload.steps)
    return {"workload": asdict(workload), "settings": asdict(settings), "ways": rows, "notes": notes}


def heading(workload: Workload, settings: Settings) -> str:
    threads = f"{settings.threads} thread{'s' * (settings.threads > 1)}"
    allocator = {"ours": "every way has", "default": "no way has", "own": "`fit` alone has"}[settings.memory]
    order = ", the plain loops deterministic, too" if settings.deterministic else ""
    where = f"{machine(settings.device)}, {threads}; {allocator} the allocator's settings{order}"
    return f"{workload}, {workload.steps} steps an epoch, {settings.rounds} epochs; {where}"


def machine(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()})"


def arguments() -> ArgumentParser:
    options = parser("speed", __doc__, "--ways naive ours ours-bf16 --rounds 5")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    options.add_argument("--device", choices=["cpu", "cuda"], default=default, help="(default: %(default)s)")
    options.add_argument("--ways", nargs="+", choices=WAYS, help="(default: all that can be run)")
    options.add_argument(
        "--size",
        nargs="+",
        help="small, large or BATCHxSIDE; 4x128 and 32x256 in 2-D, 2x32 and 2x96 in 3-D (default: small; on CUDA both)",
    )
    options.add_argument("--dims", type=int, choices=[2, 3], default=2, help="of the images (default: %(default)s)")
    options.add_argument("--steps", type=int, default=24, help="an epoch (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="epochs of each that count (default: %(default)s)")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    options.add_argument(
        "--memory",
        choices=["default", "ours", "own"],
        default="default",
        help="which ways have the settings of glibc's allocator in ways.py: none, all, `fit` (default: %(default)s)",
    )
    options.add_argument(
        "--deterministic", action="store_true", help="a second table, of plain loops with deterministic algorithms"
    )
    options.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="parameters, for all ways")
    options.add_argument("--json", type=Path, help="a file to write the figures to, too")
    return options


def parsed() -> Namespace:
    """The command line, its sizes as workloads and its parameters as a dictionary."""
    options = arguments()
    given = options.parse_args()
    sizes = given.size or (["small", "large"] if given.device == "cuda" else ["small"])
    try:
        given.size = [Workload.parse(size, given.dims, given.steps) for size in sizes]
    except ValueError:
        options.error(f"--size, --steps: found {' '.join(sizes)}, {given.steps}; allowed: small, large, 4x128; above 0")
    if given.rounds < 1 or given.threads < 1:
        options.error(f"--rounds, --threads: found {given.rounds}, {given.threads}; allowed: above 0")
    if given.device == "cuda" and not torch.cuda.is_available():
        options.error("--device: found cuda, but torch sees no GPU")
    pairs = (pair.partition("=") for pair in given.set)
    given.set = {name: yaml.safe_load(value) for name, _, value in pairs}
    return given


def main() -> None:
    run(benchmark, parsed())


if __name__ == "__main__":
    main()
