"""`Loop`: what a way's process runs, and the loop of this project."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

from llm4seg.config import Config
from llm4seg.training.run import LocalRun, start_group_of_one
from llm4seg.training.trainer import Trainer
from tests.benchmarks.speed.ways import Way

PARTS = ("train", "validate", "checkpoint")
Timed = Callable[[str], AbstractContextManager[None]]


class Loop(Protocol):
    def epoch(self, number: int, timed: Timed) -> None:
        """One epoch, from 0, with each of PARTS inside `timed`."""


class Ours:
    """`fit`, epoch by epoch."""

    def __init__(self, config: Config, folder: Path, device: torch.device) -> None:
        start_group_of_one(device)
        self._trainer = Trainer(config, LocalRun(folder, device))

    def epoch(self, number: int, timed: Timed) -> None:
        trainer, row = self._trainer, {"epoch": number + 1.0}
        with timed("train"):
            row["train_loss"] = trainer.train_epoch(number)
        with timed("validate"):
            row["val_loss"], row["val_dice"] = trainer.validate()
        row["lr"] = trainer.engine.lr
        with timed("checkpoint"):
            trainer.record(row)
            trainer.save(row)


def build(way: Way, config: Config, folder: Path, device: torch.device) -> Loop:
    """The loop of a way, its model on the device."""
    if way.loop == "naive":
        from tests.benchmarks.speed.naive import Naive

        return Naive(config, folder, device, way.metrics)
    if way.loop == "monai":
        from tests.benchmarks.speed.monai_loop import Monai

        return Monai(config, folder, device)
    return Ours(config, folder, device)
