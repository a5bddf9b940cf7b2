"""What it costs how OpenMP's threads wait for each other, on a machine that does nothing else and beside busy programs.

The forward and backward pass of params.yaml's network without an LLM layer, the default batch of 4. Each policy has a
process of its own, first alone and then beside as many endless loops as there are threads; policies take turns.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.utils.openmp import SPINS, VARIABLES
from tests.benchmarks.default import PARAMS, parser, run
from tests.benchmarks.network_cost import Variant, build

ONCE = "from tests.benchmarks.thread_waiting import once; once()"
STEPS, WARM_UP = 10, 3
POLICIES = {
    "OpenMP's default": {},
    "30000 spins": {"GOMP_SPINCOUNT": "30000"},
    f"{SPINS} spins (chosen)": {"GOMP_SPINCOUNT": SPINS},
    "1000 spins": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}


def once() -> None:
    """Print the median milliseconds of a step in this process."""
    step, took = build(Variant(), Config.load(PARAMS), 4), []
    for _ in range(WARM_UP + STEPS):
        began = time.perf_counter()
        step()
        took.append(1e3 * (time.perf_counter() - began))
    print(statistics.median(took[WARM_UP:]))


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Context manager: so many endless loops beside it."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def milliseconds(policy: dict[str, str], threads: int) -> float:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment = kept | policy | {"OMP_NUM_THREADS": str(threads)}
    return float(subprocess.check_output([sys.executable, "-c", ONCE], env=environment, text=True, cwd=PARAMS.parent))


def benchmark(rounds: int, threads: int) -> None:
    found: dict[tuple[str, bool], list[float]] = {(name, beside): [] for name in POLICIES for beside in (False, True)}
    for _ in range(rounds):
        for (name, beside), took in found.items():
            with busy(threads if beside else 0):
                took.append(milliseconds(POLICIES[name], threads))
    table = Table(title=f"a forward and backward pass, {threads} threads, median ms of each round")
    for column in ("threads that wait", "alone", f"beside {threads} busy programs"):
        table.add_column(column, justify="right" if column != "threads that wait" else "left")
    for name in POLICIES:
        cells = (", ".join(f"{one:.0f}" for one in found[name, beside]) for beside in (False, True))
        table.add_row(name, *cells)
    Console(width=100).print(table)


def main() -> None:
    options = parser("thread_waiting", __doc__, "--rounds 3")
    options.add_argument("--rounds", type=int, default=2, help="(default: %(default)s)")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    given = options.parse_args()
    run(benchmark, given.rounds, given.threads)


if __name__ == "__main__":
    main()
