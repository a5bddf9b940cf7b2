"""Train again and again under random faults; nothing that was finished may be lost, and every end must be the same.

The training is the stage `train` on made-up images with a tiny LLM, on this machine. Faults: a worker killed, a worker
stopped (it hangs), the driver killed and run again, SIGTERM and run again, and the newest checkpoint damaged, where the
one before it holds as many whole epochs. An epoch counts as lost when it is trained to its end a second time.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.utils.files import read_json
from tests.tiny import prepare_workspace
from tests.training import OFTEN, Training, history_of, wait_until, weights_of

HANG = 60  # seconds without a step after which a stopped worker is replaced
CHANGES = OFTEN | {"cluster.max_failures": 100, "cluster.timeout": HANG}
Moment = tuple[int, int]  # whole epochs, steps of the next one


@dataclass
class Tally:
    """The counts so far."""

    faults: Counter[str] = field(default_factory=Counter)
    recoveries: Counter[str] = field(default_factory=Counter)
    trainings: int = 0
    epochs: int = 0
    lost: int = 0  # epochs
    unequal: int = 0  # endings
    left: int = 0  # processes and temporary files

    @property
    def good(self) -> bool:
        return self.faults == self.recoveries and not (self.lost or self.unequal or self.left)


class Round:
    """One training from its start to its end, whatever happens to it."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.trainings: list[Training] = []
        self.start()

    def start(self) -> None:
        self.trainings.append(Training(self.config, self.folder))

    @property
    def training(self) -> Training:
        return self.trainings[-1]

    def ended(self) -> bool:
        return self.training.process.poll() is not None

    def wait_beyond(self, moment: Moment) -> bool:
        """Wait until a checkpoint is further than a moment; False: the training has ended before."""
        wait_until(lambda: self.ended() or self.training.completed() > moment, f"stuck:\n{self.training.shown()}")
        return not self.ended()

    def kill_worker(self) -> None:
        self.training.worker().kill()

    def stop_worker(self) -> None:
        self.training.worker().suspend()

    def kill_driver(self) -> None:
        self.training.kill()
        self.start()

    def terminate(self) -> None:
        self.training.process.send_signal(signal.SIGTERM)
        assert self.training.end() in (0, 143), self.training.shown()
        if self.training.process.returncode == 143:
            self.start()

    def damage_checkpoint(self) -> None:
        """Cut the newest checkpoint's state in half."""
        self.training.kill()
        *_, before, newest = None, None, *self.training.whole_checkpoints()
        if before and newest and epochs_in(before) == epochs_in(newest):
            state = newest / "state.safetensors"
            state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
        self.start()

    def epochs_finished(self) -> list[int]:
        """The numbers of all epochs whose end was printed, once for each time."""
        return [epoch for training in self.trainings for epoch in training.epochs_printed()]


FAULTS: dict[str, tuple[float, Callable[[Round], None]]] = {  # how likely each is
    "worker killed": (3, Round.kill_worker),
    "worker stopped": (1, Round.stop_worker),
    "driver killed, run again": (2, Round.kill_driver),
    "SIGTERM, run again": (2, Round.terminate),
    "newest checkpoint damaged": (2, Round.damage_checkpoint),
}


def epochs_in(checkpoint: Path) -> int:
    """Whole epochs in a checkpoint."""
    return len(read_json(checkpoint / "checkpoint.json")["progress"]["history"])


def soak(seconds: float, seed: int, config: Config, folder: Path, log: Callable[[str], None]) -> Tally:
    """Trainings with faults until the time is over; the one under way then comes to its end undisturbed."""
    draw, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    undisturbed = Round(config, folder / "undisturbed")
    assert undisturbed.training.end() == 0, undisturbed.training.shown()
    wanted = history_of(config), weights_of(config)
    log(f"undisturbed: {undisturbed.epochs_finished()[-1]} epochs, weights {wanted[1][:12]}")
    while time.monotonic() < deadline:
        disturbed = Round(config, folder / f"round-{tally.trainings}")
        disturb(disturbed, draw, tally, deadline, log)
        assert disturbed.training.end() == 0, disturbed.training.shown()
        finished = disturbed.epochs_finished()
        tally.trainings += 1
        tally.epochs += len(set(finished))
        tally.lost += len(finished) - len(set(finished))
        tally.unequal += (history_of(config), weights_of(config)) != wanted
        tally.left += len(disturbed.training.left())
        log(f"training {tally.trainings} ended after {len(disturbed.trainings)} starts; lost so far: {tally.lost}")
    return tally


def disturb(disturbed: Round, draw: random.Random, tally: Tally, deadline: float, log: Callable[[str], None]) -> None:
    """Faults at random steps until the training or the time is over."""
    epochs, step = 0, draw.randrange(10)
    while disturbed.wait_beyond((epochs, step)) and time.monotonic() < deadline:
        name = draw.choices(list(FAULTS), [weight for weight, _ in FAULTS.values()])[0]
        FAULTS[name][1](disturbed)
        before = disturbed.training.completed()
        log(f"{name} at epoch {before[0] + 1}, step {before[1]}")
        tally.faults[name] += 1
        if disturbed.wait_beyond(before) or disturbed.training.process.returncode == 0:
            tally.recoveries[name] += 1
        epochs, step = before[0], before[1] + draw.randrange(10)


def table(tally: Tally, minutes: float, seed: int) -> Table:
    whole = Table(title=f"soak: {minutes:g} minutes, seed {seed}")
    whole.add_column("")
    for name in ("faults", "recoveries"):
        whole.add_column(name, justify="right")
    for name in FAULTS:
        whole.add_row(name, str(tally.faults[name]), str(tally.recoveries[name]))
    whole.add_row("all", str(tally.faults.total()), str(tally.recoveries.total()), style="bold", end_section=True)
    for name, value in (
        ("trainings finished", tally.trainings),
        ("epochs whose end was told", tally.epochs),
        ("finished epochs lost", tally.lost),
        ("endings unlike the undisturbed one's, in history or a bit of the weights", tally.unequal),
        ("processes and temporary files left", tally.left),
    ):
        whole.add_row(name, str(value), "")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        epilog="example: python -m tests.soak --minutes 20",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=20, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the faults; default: %(default)s")
    arguments = parser.parse_args()
    console, began = Console(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        config = prepare_workspace(Path(name) / "workspace").override(CHANGES)

        def log(line: str) -> None:
            console.print(f"{time.monotonic() - began:6.0f} s  {line}", highlight=False)

        tally = soak(60 * arguments.minutes, arguments.seed, config, Path(name), log)
    console.print(table(tally, arguments.minutes, arguments.seed))
    sys.exit(0 if tally.good else 1)


if __name__ == "__main__":
    main()
