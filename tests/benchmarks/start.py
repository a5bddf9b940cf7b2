"""How long it takes from the command of the stage `train` to the end of its first optimizer step, and where it goes.

The stage itself runs, on the default config and one worker of this machine's own Ray, with data and LLM layer at hand;
after the first step it is told to leave. Each round is a new process with a Ray of its own.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.default import PARAMS, default_config, parser, run

MARKS = "LLM4SEG_BENCHMARK_MARKS"  # the file that driver and worker write moments to
ONCE = "from tests.benchmarks.start import once; once()"
ALLOWED = 25
BEGAN, IMPORTED, CONNECTED, STARTED = "began", "Python and imports", "Ray starts", "Ray Train starts a worker"


def mark(what: str) -> None:
    """Note that something has ended now; the system's clock is the same in every process."""
    with Path(os.environ[MARKS]).open("a") as file:
        file.write(f"{time.time()} {what}\n")


def marking(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which notes its end."""

    def marked(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        mark(what)
        return result

    return marked


def one_step(order: dict[str, Any]) -> dict[str, Any]:
    """What a Ray Train worker runs, up to its first optimizer step."""
    mark(STARTED)
    from llm4seg.cluster.launch import worker
    from llm4seg.training import trainer as train
    from llm4seg.utils.errors import StopRequested

    def leave(*arguments: Any) -> None:
        step(*arguments)
        mark("first step")
        raise StopRequested

    step = train.Trainer.train_step
    train.assemble = marking("data, model and LLM layer", train.assemble)  # type: ignore[assignment]
    train.newest = marking("look for a checkpoint", train.newest)
    train.build_engine = marking("DeepSpeed", train.build_engine)
    train.Trainer.train_step = leave  # type: ignore[method-assign]
    return worker(order)


def once() -> None:
    """The stage `train` in this process, with marks on its way."""
    import psutil

    from llm4seg.cluster import launch as train
    from llm4seg.config import Config
    from llm4seg.utils.errors import StopRequested
    from pipelines.train import train as stage

    Path(os.environ[MARKS]).write_text(f"{psutil.Process().create_time()} {BEGAN}\n")
    mark(IMPORTED)
    train.worker = one_step
    before = train.train_on_ray
    train.train_on_ray = lambda *given, **named: mark(CONNECTED) or before(*given, **named)  # type: ignore[func-returns-value]
    folder = Path(os.environ[MARKS]).parent
    changes = {"paths.runs": str(folder / "runs"), "cluster.workers": 1, "cluster.storage": None}
    with suppress(StopRequested):
        stage(Config.load(PARAMS).override(changes))


def seconds(folder: Path) -> dict[str, float]:
    """Of one round: seconds of each part, in the order of time."""
    marks = folder / "marks"
    ended = subprocess.run([sys.executable, "-c", ONCE], env=os.environ | {MARKS: str(marks)}, cwd=PARAMS.parent)
    if ended.returncode:
        sys.exit(f"the stage ended with exit code {ended.returncode}")
    lines = [line.split(" ", 1) for line in marks.read_text().splitlines()]
    return {what: float(now) - float(before) for (before, _), (now, what) in pairwise(lines)}


def table(rounds: list[dict[str, float]]) -> Table:
    shown = Table(title="from the command to the first step, one worker")
    for column in ("", "median s", *(f"round {number}" for number in range(1, len(rounds) + 1))):
        shown.add_column(column, justify="right" if column else "left")
    for what in rounds[0]:
        each = [one[what] for one in rounds]
        shown.add_row(what, f"{statistics.median(each):.1f}", *(f"{value:.1f}" for value in each))
    wholes = [sum(one.values()) for one in rounds]
    whole = statistics.median(wholes)
    shown.add_row(f"in all (at most {ALLOWED})", f"{whole:.1f}", *(f"{value:.1f}" for value in wholes), style="bold")
    return shown


def benchmark(number: int) -> None:
    default_config()
    rounds = []
    for _ in range(number):
        with tempfile.TemporaryDirectory() as name:
            rounds.append(seconds(Path(name)))
    Console(width=100).print(table(rounds))


def main() -> None:
    arguments = parser("start", __doc__, "--rounds 5")
    arguments.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    run(benchmark, arguments.parse_args().rounds)


if __name__ == "__main__":
    main()
