"""A running `python -m pipelines.train`, or another stage: the target of faults, in tests and in the soak."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

from llm4seg.config import Config
from llm4seg.training.checkpoint import Checkpoint, DamagedCheckpoint
from llm4seg.utils.files import sha256_file
from tests.import_graph import ROOT

POLL = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}  # seconds after which Ray takes in the next checkpoint
MARK = "LLM4SEG_TEST_MARK"  # in the environment of all that a test starts
TIMEOUT = 400  # seconds, for what takes ten on an idle machine

# a checkpoint after nearly every step, so that a fault finds one within an epoch
OFTEN = {"cluster.checkpoint_minutes": 1e-5, "training.epochs": 8, "training.batch_size": 2}


def wait_until(what: Callable[[], Any], why: str) -> Any:
    """Poll until a result is true. A number of polls, not a time: a machine may be suspended in between."""
    for _ in range(20 * TIMEOUT):
        if answer := what():
            return answer
        time.sleep(0.05)
    raise AssertionError(why)


class Stage:
    """A stage on a config, in its own session; its temporary files go to TMPDIR, or else to a new folder."""

    def __init__(self, stage: str, config: Config, folder: Path, **environment: str) -> None:
        self.config, self.folder, self.mark = config, folder, str(uuid.uuid4())
        if "TMPDIR" in environment:
            self.temporary = Path(environment["TMPDIR"])
        else:  # not below pytest's folders: a socket's path has 107 characters at most, and Ray's dashboard adds some
            self.temporary = Path(tempfile.mkdtemp(prefix="stage-", dir="/tmp"))
            weakref.finalize(self, shutil.rmtree, self.temporary, ignore_errors=True)
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.output = folder / f"output-{self.mark}.txt"
        (folder / "params.yaml").write_text(yaml.safe_dump(config.plain()))
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"pipelines.{stage}", "--params", str(folder / "params.yaml")],
                start_new_session=True,
                cwd=ROOT,
                # Ray's sockets need short paths
                env=os.environ
                | {MARK: self.mark, "TMPDIR": str(self.temporary), "RAY_TMPDIR": "/tmp"}
                | POLL
                | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def everything(self) -> list[psutil.Process]:
        """All running processes that it started, also detached ones."""
        return [process for process in psutil.process_iter() if _mark(process) == self.mark]

    def actor(self, name: str, other_than: tuple[int, ...] = ()) -> psutil.Process:
        """The process of a Ray actor, once there is one."""

        def found() -> list[psutil.Process]:
            return [one for one in self.everything() if name in _command(one) and one.pid not in other_than]

        process: psutil.Process = wait_until(found, f"no {name}:\n{self.shown()}")[0]
        return process

    def worker(self, other_than: tuple[int, ...] = ()) -> psutil.Process:
        """A worker, once there is one."""
        return self.actor("RayTrainWorker", other_than)

    def kill(self) -> None:
        """Send SIGKILL to the driver's process group; wait until all its processes are dead."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not self.everything(), "the driver is dead, its workers are not")

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        try:
            return self.process.wait(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end:\n{self.shown()}") from None

    def shown(self) -> str:
        return self.output.read_text()

    def left(self) -> list[str]:
        """Leftovers a while after its end: processes and temporary files."""
        deadline = time.monotonic() + 30
        while (processes := self.everything()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [_command(process) for process in processes] + [
            str(path) for path in self.temporary.glob("llm4seg-*") if path.exists()
        ]


class Training(Stage):
    """A stage that trains models, one after another; `train` trains one."""

    stage = "train"

    def __init__(self, config: Config, folder: Path, **environment: str) -> None:
        super().__init__(self.stage, config, folder, **environment)

    def checkpoints(self) -> list[Path]:
        """The folders of its checkpoints, the newest last."""
        return sorted(self.config.paths.runs.glob("train-*/checkpoint_*/"))

    def whole_checkpoints(self) -> list[Path]:
        """The checkpoints that are complete."""
        return [folder for folder in self.checkpoints() if _is_whole(folder)]

    def completed(self) -> tuple[int, int]:
        """Whole epochs, and steps of the epoch under way, in the newest checkpoint."""
        for folder in reversed(self.checkpoints()):
            try:
                progress = json.loads((folder / "checkpoint.json").read_text())["progress"]
            except (OSError, ValueError):
                continue  # half-uploaded, or just deleted
            return len(progress["history"]), progress["step"]
        return 0, 0

    def reach(self, epochs: int, step: int) -> None:
        """Wait until a checkpoint has reached an epoch and step."""

        def there() -> bool:
            assert self.process.poll() is None, f"ended before epoch {epochs}, step {step}:\n{self.shown()}"
            return self.completed() >= (epochs, step)

        wait_until(there, f"epoch {epochs}, step {step} was not reached:\n{self.shown()}")

    def epochs_printed(self) -> list[int]:
        """The numbers of the epochs whose end it printed."""
        return [int(number) for number in re.findall(r"^epoch +(\d+)/", self.shown(), flags=re.MULTILINE)]


def history_of(config: Config) -> list[dict[str, float]]:
    """The history of a finished stage."""
    records: list[Any] = pd.read_csv(config.paths.history).to_dict("records")
    return records


def weights_of(config: Config) -> str:
    """The sha256 of the weights of a finished stage."""
    return sha256_file(config.paths.model / "weights.safetensors")


def _is_whole(checkpoint: Path) -> bool:
    try:
        return bool(Checkpoint.read(checkpoint))
    except DamagedCheckpoint:
        return False


def _mark(process: psutil.Process) -> str | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else process.environ().get(MARK)
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return None


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
