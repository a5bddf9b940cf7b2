"""Runs ways in processes of their own, which take turns, epoch by epoch."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tests.benchmarks.default import PARAMS
from tests.benchmarks.speed.ways import WAYS, environment
from tests.benchmarks.speed.workload import Workload


@dataclass(frozen=True)
class Settings:
    """What all ways share."""

    device: str
    threads: int
    memory: str
    rounds: int
    deterministic: bool = False  # the plain loops, too


@dataclass(frozen=True)
class Measured:
    """Of one way: what its worker answered for each epoch that counts, and its counts of one epoch."""

    epochs: list[dict[str, float]]
    counts: dict[str, float]


class WayFailed(Exception):
    """A way's process ended; its last lines."""


class Process:
    """A way's process."""

    def __init__(self, name: str, changes: Mapping[str, Any], folder: Path, settings: Settings) -> None:
        folder.mkdir(parents=True)
        shared = asdict(settings)
        order = {"way": name, "changes": dict(changes) | WAYS[name].changes, "folder": str(folder / "run"), **shared}
        environ = os.environ | environment(WAYS[name], settings.memory, settings.threads)
        self._log = folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.speed.worker", json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=PARAMS.parent,
                env=environ,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        self._process.communicate()

    def answer(self, command: str | None = None) -> dict[str, float]:
        """What it answers to a command, or first of all. Raises WayFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if command is not None and self._process.poll() is None:
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise WayFailed(" | ".join(self._log.read_text().strip().splitlines()[-3:]))
        found: dict[str, float] = json.loads(line)
        return found


def compare(
    ways: Sequence[str], workload: Workload, changes: Mapping[str, Any], folder: Path, settings: Settings
) -> tuple[dict[str, Measured], list[str]]:
    """What was measured of each way that did not fail, and a line for each that did.

    The first epoch of each warms up: it is where steps are recorded and memory is allocated. The order of the ways is
    reversed from round to round.
    """
    notes: list[str] = []
    processes: dict[str, Process] = {}
    epochs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    counts: dict[str, dict[str, float]] = {}

    def ask(name: str, command: str | None) -> dict[str, float] | None:
        try:
            return processes[name].answer(command)
        except WayFailed as error:
            notes.append(f"{name}: failed: {error}")
            del processes[name]
            return None

    with ExitStack() as stack:
        for name in ways:
            processes[name] = stack.enter_context(Process(name, changes, folder / name, settings))
        for name in ways:
            ask(name, None)  # all start at once, and nothing is measured before the last is ready
        for number in range(settings.rounds + 1):
            for name in list(processes)[:: -1 if number % 2 else 1]:
                if (found := ask(name, "epoch")) and number:
                    epochs[name].append(found)
        for name in list(processes):
            if found := ask(name, "count"):
                counts[name] = {key: found.get(key, 0) / workload.steps for key in ("launches", "syncs")}
    return {name: Measured(epochs[name], counts[name]) for name in ways if name in counts}, notes
