"""How long `dvc repro` takes from nothing, stage by stage, and what it reaches.

Clones the committed project to a temporary folder, so that nothing made before is reused; the installed environment
is this one.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).parents[2]


def clone(folder: Path) -> None:
    """The committed project in `folder`."""
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(folder)], check=True)


def time_stages(folder: Path, options: list[str]) -> dict[str, float]:
    """Run `dvc repro` and note when each stage begins; returns seconds a stage."""
    command = [sys.executable, "-m", "dvc", "repro", *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    began = {"dvc starts": time.monotonic()}
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if match := re.match(r"Running stage '(\w+)'", line):
            began[match[1]] = time.monotonic()
    if process.wait():
        sys.exit("dvc repro failed")
    moments = [*began.values(), time.monotonic()]
    return {name: after - before for name, before, after in zip(began, moments, moments[1:], strict=False)}


def table(folder: Path, seconds: dict[str, float]) -> Table:
    """Seconds a stage, what of `train` was not training, and what was reached."""
    whole = Table(title="dvc repro, from nothing")
    whole.add_column("stage")
    whole.add_column("seconds", justify="right")
    for name, value in seconds.items():
        whole.add_row(name, f"{value:.1f}")
    whole.add_row("total", f"{sum(seconds.values()):.1f}", style="bold")
    train = json.loads((folder / ".cache/train_seconds.json").read_text())
    whole.add_row("Ray + DVC overhead of train", f"{seconds['train'] - train['fit']:.1f}")
    metrics = json.loads((folder / "outputs/metrics.json").read_text())
    whole.add_row("mean test Dice", f"{metrics['dice']['mean']:.3f}")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.pipeline",
        description=__doc__,
        epilog="example: python -m tests.benchmarks.pipeline",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for the clone, which then stays")
    parser.add_argument("repro", nargs="*", help="options for dvc repro, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name) / "llm4seg"
        clone(folder)
        seconds = time_stages(folder, arguments.repro)
        Console().print(table(folder, seconds))


if __name__ == "__main__":
    main()
