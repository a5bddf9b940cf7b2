"""Tracker TensorBoard: event files below `paths.tracking`, which `tensorboard --logdir .tracking/tensorboard` shows."""

import time
from pathlib import Path

import numpy as np
from PIL import Image

from llm4seg.config import Config
from llm4seg.tracking.tracker import metrics
from llm4seg.training.run import Row


class TensorBoardRun:
    """A folder of event files; a later process adds another file to it."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def row(self, row: Row) -> None:
        for name, value in metrics(row).items():
            self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def picture(self, epoch: int, place: int, path: Path) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(f"validation case {place + 1}", pixels, epoch, dataformats="HWC")
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


def tensorboard_run(config: Config, name: str, resume: str | None) -> tuple[TensorBoardRun, str]:
    """A run in `paths.tracking`/tensorboard, new or the one of the folder `resume`."""
    folder = resume or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return TensorBoardRun(config.paths.tracking / "tensorboard" / folder), folder
