"""What a training does beside computing: how long it waits for data and for its checkpoints, as shares of an epoch.

Some epochs of the default config on one worker of this machine's own Ray, as the stage `train` runs them, with a
checkpoint at the end of each. "Waits for data": the time until the loader's thread hands over the next batch.
"Checkpoint": the time until training goes on, that is copying, writing and hashing; the upload goes on beside it.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.default import default_config, parser, run

DATA, CHECKPOINT, VALIDATION, EPOCH = "waits for data", "checkpoint", "validation", "epoch"
ALLOWED = 2  # per cent of an epoch


def timed(function: Callable[..., Any], into: dict[str, float], part: str) -> Callable[..., Any]:
    """The function, which adds its seconds."""

    def timing(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = function(*arguments)
        into[part] = into.get(part, 0.0) + time.perf_counter() - began
        return result

    return timing


def watched_worker(order: dict[str, Any]) -> dict[str, Any]:
    """What a Ray Train worker runs, with its waits measured and written down epoch by epoch."""
    from llm4seg.cluster.launch import worker
    from llm4seg.training.feed import Feed
    from llm4seg.training.trainer import Trainer

    took: dict[str, float] = {}
    batches, train_epoch, save = Feed.micro_batches, Trainer.train_epoch, Trainer.save
    began = [0.0]

    def watched_batches(feed: Feed, order: Any, epoch: int) -> Generator[Any, None, None]:
        following = batches(feed, order, epoch)
        try:
            while (one := timed(next, took, DATA)(following, None)) is not None:
                yield one
        finally:
            following.close()

    def noted_epoch(trainer: Trainer, epoch: int) -> float:
        began[0] = time.perf_counter()
        return train_epoch(trainer, epoch)

    def noted_save(trainer: Trainer, row: Any) -> None:
        timed(save, took, CHECKPOINT)(trainer, row)
        with (trainer.config.paths.cache / "waits").open("a") as file:
            file.write(json.dumps(took | {EPOCH: time.perf_counter() - began[0]}) + "\n")
        took.clear()

    Feed.micro_batches = watched_batches  # type: ignore[method-assign]
    Trainer.train_epoch = noted_epoch  # type: ignore[method-assign]
    Trainer.record = timed(Trainer.record, took, CHECKPOINT)  # type: ignore[method-assign]
    Trainer.validate = timed(Trainer.validate, took, VALIDATION)  # type: ignore[method-assign]
    Trainer.save = noted_save  # type: ignore[method-assign]
    return worker(order)


def train(epochs: int, folder: Path) -> list[dict[str, float]]:
    """Seconds of each part of each epoch."""
    from llm4seg.cluster import launch as train
    from llm4seg.cluster.session import ray_session

    changes = {"training.epochs": epochs, "cluster.workers": 1, "cluster.storage": None}
    config = default_config().override(changes | {f"paths.{name}": str(folder) for name in ("runs", "cache")})
    train.worker = watched_worker
    with ray_session(config.cluster):
        train.train_on_ray(config)
    return [json.loads(line) for line in (folder / "waits").read_text().splitlines()]


def table(epochs: list[dict[str, float]]) -> Table:
    shown = Table(title=f"{len(epochs)} epochs, one worker; medians")
    for column in ("", "s", "% of the epoch", "at most %"):
        shown.add_column(column, justify="right" if column else "left")
    for part in (DATA, CHECKPOINT, VALIDATION, EPOCH):
        middle = statistics.median(one[part] for one in epochs)
        share = statistics.median(100 * one[part] / one[EPOCH] for one in epochs)
        shown.add_row(part, f"{middle:.3f}", f"{share:.2f}", str(ALLOWED) if part in (DATA, CHECKPOINT) else "")
    return shown


def benchmark(epochs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        Console(width=100).print(table(train(epochs, Path(name))))


def main() -> None:
    arguments = parser("waiting", __doc__, "--epochs 5")
    arguments.add_argument("--epochs", type=int, default=5, help="(default: %(default)s)")
    run(benchmark, arguments.parse_args().epochs)


if __name__ == "__main__":
    main()
