"""Images a second in training: this project's `fit`, and a plain loop written the naive way on the same model and data.

The naive loop: torch alone, eager, contiguous, float32; the whole LLM is loaded for one layer; batches are read when
they are wanted; every step's metrics are computed in NumPy; a checkpoint with the LLM layer inside every epoch, by
torch.save. It has the same augmentation, loss, optimizer and order of samples. An epoch is training, validation and a
checkpoint. Epochs of all ways take turns in one process; the first of each warms up, the median of the others counts.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from llm4seg.config import Config
from llm4seg.data.augment import augment
from llm4seg.data.batches import epoch_order, load_batch, steps_per_epoch
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.llm_sources.sources import locate
from llm4seg.objectives.losses import build_loss
from llm4seg.training.optim import build_optimizer, build_schedule
from llm4seg.training.run import LocalRun, start_group_of_one
from llm4seg.training.trainer import Trainer, assemble
from tests.benchmarks.default import default_config, parser, run

NAIVE, PARTS = "naive loop", ("train", "validate", "checkpoint")
WAYS: dict[str, dict[str, Any]] = {
    "fit, plain torch": {"engine.name": "torch"},
    "fit, DeepSpeed (default)": {},
    "fit, DeepSpeed, bf16": {"engine.precision": "bf16"},
}
WANTED = 1.3


class Way(Protocol):
    def epoch(self, number: int, timed: Callable[[str], Any]) -> None:
        """One epoch, each of PARTS inside `timed`."""


class Ours:
    def __init__(self, config: Config, folder: Path) -> None:
        self._trainer = Trainer(config, LocalRun(folder, device()))

    def epoch(self, number: int, timed: Callable[[str], Any]) -> None:
        trainer = self._trainer
        row = {"epoch": number + 1.0}
        with timed("train"):
            row["train_loss"] = trainer.train_epoch(number)
        with timed("validate"):
            row |= {**trainer.validate(), "lr": trainer.engine.lr}
        with timed("checkpoint"):
            trainer.record(row)
            trainer.save(row)


class Naive:
    def __init__(self, config: Config, folder: Path) -> None:
        self._section, self._file = config.training, folder.with_suffix(".pth")
        self._data, self._split = Prepared(config.paths.prepared), read_split(config.paths.split)
        self._classes, self._loss = len(self._data.classes), build_loss(config.training.loss)
        model: Any = assemble(config, self._data)
        (layer,) = config.model.llm.layer
        model.bottleneck.core.layers[0] = whole_llm(config).model.layers[layer].requires_grad_(False)
        self._model: nn.Module = model.to(device())
        trained = [one for one in model.parameters() if one.requires_grad]
        self._optimizer = build_optimizer(trained, config.optimizer)
        steps = steps_per_epoch(len(self._split.train), config.training.batch_size) * config.training.epochs
        self._schedule = build_schedule(self._optimizer, config.optimizer, steps)

    def epoch(self, number: int, timed: Callable[[str], Any]) -> None:
        section, train = self._section, self._split.train
        with timed("train"):
            self._model.train()
            for samples in epoch_order(len(train), section.batch_size, section.seed, number):
                self._step(samples.tolist(), number)
        with timed("validate"), torch.no_grad():
            self._model.eval()
            for start in range(0, len(self._split.val), section.batch_size):
                images, labels = load_batch(self._data, self._split.val[start : start + section.batch_size], device())
                self._look(logits := self._model(images), labels, self._loss(logits, labels))
        with timed("checkpoint"):
            torch.save({"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}, self._file)

    def _step(self, samples: list[int], epoch: int) -> None:
        images, labels = load_batch(self._data, [self._split.train[sample] for sample in samples], device())
        images, labels = augment(images, labels, samples, self._section.augment, self._section.seed, epoch)
        logits = self._model(images)
        loss = self._loss(logits, labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        self._look(logits, labels, loss)

    def _look(self, logits_NKS: Tensor, labels_NS: Tensor, loss: Tensor) -> tuple[float, dict[str, np.ndarray]]:
        predicted, labels = logits_NKS.detach().softmax(1).cpu().numpy().argmax(1), labels_NS.cpu().numpy()
        return loss.item(), numpy_metrics(predicted, labels, self._classes)


def numpy_metrics(predicted: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """IoU, Dice, precision, recall and accuracy of each class."""
    found = []
    for label in range(1, classes + 1):
        mine, theirs = predicted == label, labels == label
        tp, fp, fn = (mine & theirs).sum(), (mine & ~theirs).sum(), (~mine & theirs).sum()
        accuracy = (mine == theirs).mean()
        ratios = [tp / (tp + fp + fn + 1e-5), 2 * tp / (2 * tp + fp + fn + 1e-5), tp / (tp + fp + 1e-5)]
        found.append([*ratios, tp / (tp + fn + 1e-5), accuracy])
    return dict(zip(("iou", "dice", "precision", "recall", "accuracy"), np.transpose(found), strict=True))


def whole_llm(config: Config) -> Any:
    """The LLM as transformers loads it."""
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    location = locate(config.llm, config.paths.cache)
    folder = location.storage.place()
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=location.file, dtype=torch.float32)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def stopwatch(into: dict[str, float], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    into[part] = time.perf_counter() - began


def compare(config: Config, rounds: int, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Seconds of each part of each epoch of each way, and of its start."""
    ways: dict[str, Way] = {}
    starts: dict[str, dict[str, float]] = {name: {} for name in (NAIVE, *WAYS)}
    for name, took in starts.items():
        with stopwatch(took, "start"):
            make = Naive if name == NAIVE else Ours
            ways[name] = make(config.override(WAYS.get(name, {})), folder / name)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            took = dict(starts[name])
            way.epoch(number, partial(stopwatch, took))
            found[name].append(took)
    return {name: epochs[1:] for name, epochs in found.items()}


def table(found: Mapping[str, list[dict[str, float]]], images: int) -> Table:
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    shown = Table(title=f"an epoch of {images} images, {where}")
    shown.add_column("way")
    for column in ("images/s", f"times (at least {WANTED})", *(f"{part}, s" for part in (*PARTS, "start"))):
        shown.add_column(column, justify="right")
    speeds = {
        name: statistics.median(images / sum(one[part] for part in PARTS) for one in epochs)
        for name, epochs in found.items()
    }
    for name, epochs in found.items():
        parts = (statistics.median(one[part] for one in epochs) for part in (*PARTS, "start"))
        cells = [f"{speeds[name]:.1f}", f"{speeds[name] / speeds[NAIVE]:.2f}", *(f"{part:.2f}" for part in parts)]
        shown.add_row(name, *cells)
    return shown


def benchmark(rounds: int, threads: int) -> None:
    config = default_config()
    torch.set_num_threads(threads)
    start_group_of_one(device())
    with tempfile.TemporaryDirectory() as name:
        found = compare(config, rounds, Path(name))
    Console(width=110).print(table(found, len(read_split(config.paths.split).train)))


def main() -> None:
    arguments = parser("speed", __doc__, "--rounds 5")
    arguments.add_argument("--rounds", type=int, default=3, help="epochs of each way that count (default: %(default)s)")
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    given = arguments.parse_args()
    run(benchmark, given.rounds, given.threads)


if __name__ == "__main__":
    main()
