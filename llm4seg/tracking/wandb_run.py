"""Tracker Weights & Biases: offline, below `paths.tracking`, unless WANDB_MODE says otherwise."""

import os
import uuid
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.tracking.values import metrics, parameters
from llm4seg.training.run import Row

PROJECT = "llm4seg"


class WandbRun:
    """A run of the project `llm4seg`, or of that of WANDB_PROJECT.

    Offline by default: pictures of patients leave this machine only when somebody says so.
    """

    def __init__(self, config: Config, name: str, run_id: str) -> None:
        import wandb

        folder = config.paths.tracking
        folder.mkdir(parents=True, exist_ok=True)
        self._image = wandb.Image
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(folder),
            id=run_id,
            name=name,
            resume="allow",
            mode=mode,
            config=parameters(config),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def row(self, row: Row) -> None:
        self._run.log(metrics(row), step=int(row["epoch"]))

    def picture(self, epoch: int, place: int, path: Path) -> None:
        self._run.log({f"validation case {place + 1}": self._image(str(path))}, step=epoch)

    def close(self, finished: bool) -> None:
        self._run.finish()


def wandb_run(config: Config, name: str, resume: str | None) -> tuple[WandbRun, str]:
    """A new run, or the one with the id `resume`."""
    run_id = resume or uuid.uuid4().hex[:8]
    return WandbRun(config, name, run_id), run_id
