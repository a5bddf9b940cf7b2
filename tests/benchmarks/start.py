"""How long it takes from the command of the stage `train` to the end of its first optimizer step, and where it goes.

The stage itself runs, on the default config and one worker, with data and LLM layer at hand; after the first step it is
told to leave. Each round is a new process, with a Ray of its own where the launcher is Ray. Beside the seconds that
passed are the processor seconds of all its processes until then, which other work changes less, and their memory.
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

import psutil
from rich.console import Console
from rich.table import Table

from tests.benchmarks.default import PARAMS, default_config, parser, run

MARKS = "LLM4SEG_BENCHMARK_MARKS"  # the file that driver and worker write moments to
LAUNCHER = "LLM4SEG_BENCHMARK_LAUNCHER"
ONCE = "from tests.benchmarks.start import once; once()"
ALLOWED = {"ray": 12, "process": 4}  # seconds that are wanted
BEGAN, IMPORTED, CONNECTED, STARTED = "began", "Python and imports", "Ray starts", "Ray Train starts a worker"
USED = ("processor s of all processes", "memory of all processes, GB")


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


def used() -> tuple[float, float]:
    """Processor seconds and GB (each page once, in a share of those that map it) of the stage and all below it."""
    stage = psutil.Process(int((Path(os.environ[MARKS]).parent / "pid").read_text()))
    seconds, memory = 0.0, 0
    for process in (stage, *stage.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
            memory += process.memory_full_info().pss
    return seconds, memory / 1e9


def until_first_step() -> None:
    """Let a training in this process note the ends of its parts, and stop after its first optimizer step."""
    from llm4seg.training import trainer as train
    from llm4seg.utils.errors import StopRequested

    def leave(*arguments: Any) -> None:
        step(*arguments)
        mark("first step")
        (Path(os.environ[MARKS]).parent / "used").write_text(" ".join(map(str, used())))
        raise StopRequested

    step = train.Trainer.train_step
    train.assemble = marking("data, model and LLM layer", train.assemble)  # type: ignore[assignment]
    train.newest = marking("look for a checkpoint", train.newest)
    train.build_engine = marking("engine", train.build_engine)
    train.Trainer.train_step = leave  # type: ignore[assignment,method-assign]


def one_step(order: dict[str, Any]) -> dict[str, Any]:
    """What a Ray Train worker runs, up to its first optimizer step."""
    mark(STARTED)
    from llm4seg.cluster.launch import worker

    until_first_step()
    return worker(order)


def on_ray() -> None:
    """Let a training on Ray note when Ray and its worker are there, and stop after the first step."""
    from llm4seg.cluster import session

    def connect(section: Any) -> None:
        before(section)
        mark(CONNECTED)
        from llm4seg.cluster import launch

        launch.worker = one_step  # type: ignore[assignment]

    before = session._connect
    session._connect = connect


def once() -> None:
    """The stage `train` in this process, with marks on its way."""
    from llm4seg.config import Config
    from llm4seg.config.best import write_best
    from llm4seg.utils.errors import StopRequested
    from llm4seg.utils.openmp import let_threads_sleep
    from pipelines.train import train as stage

    folder, launcher = Path(os.environ[MARKS]).parent, os.environ[LAUNCHER]
    write_best(folder, {})
    let_threads_sleep()  # as `run_stage` does
    (folder / "pid").write_text(str(os.getpid()))
    Path(os.environ[MARKS]).write_text(f"{psutil.Process().create_time()} {BEGAN}\n")
    (on_ray if launcher == "ray" else until_first_step)()
    mark(IMPORTED)
    changes = {
        "paths.runs": str(folder / "runs"),
        "paths.search": str(folder),
        "cluster.launcher": launcher,
        "cluster.workers": 1,
        "cluster.storage": None,
    }
    with suppress(StopRequested):
        stage(Config.load(PARAMS).override(changes))


def seconds(folder: Path, launcher: str) -> dict[str, float]:
    """Of one round: seconds of each part, in the order of time, and after these what was used."""
    marks = folder / "marks"
    own = {MARKS: str(marks), LAUNCHER: launcher}
    ended = subprocess.run([sys.executable, "-c", ONCE], env=os.environ | own, cwd=PARAMS.parent)
    if ended.returncode:
        sys.exit(f"the stage ended with exit code {ended.returncode}")
    lines = [line.split(" ", 1) for line in marks.read_text().splitlines()]
    parts = {what: float(now) - float(before) for (before, _), (now, what) in pairwise(lines)}
    return parts | dict(zip(USED, map(float, (folder / "used").read_text().split()), strict=True))


def table(rounds: list[dict[str, float]], launcher: str) -> Table:
    shown = Table(title=f"from the command to the first step, one worker, cluster.launcher: {launcher}")
    for column in ("", "median s", *(f"round {number}" for number in range(1, len(rounds) + 1))):
        shown.add_column(column, justify="right" if column else "left")

    def add(what: str, each: list[float], style: str = "") -> None:
        shown.add_row(what, f"{statistics.median(each):.1f}", *(f"{value:.1f}" for value in each), style=style)

    parts = [what for what in rounds[0] if what not in USED]
    for what in parts:
        add(what, [one[what] for one in rounds])
    add(f"in all (at most {ALLOWED[launcher]})", [sum(one[what] for what in parts) for one in rounds], "bold")
    for what in USED:
        add(what, [one[what] for one in rounds])
    return shown


def benchmark(number: int, launcher: str) -> None:
    default_config()
    rounds = []
    for _ in range(number):
        with tempfile.TemporaryDirectory() as name:
            rounds.append(seconds(Path(name), launcher))
    Console(width=100).print(table(rounds, launcher))


def main() -> None:
    arguments = parser("start", __doc__, "--rounds 5")
    arguments.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    arguments.add_argument("--launcher", choices=[*ALLOWED], default="ray", help="(default: %(default)s)")
    chosen = arguments.parse_args()
    run(benchmark, chosen.rounds, chosen.launcher)


if __name__ == "__main__":
    main()
