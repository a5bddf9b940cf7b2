"""`Tracker`: who is told of a training's epochs; the one that `tracking.to` names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from llm4seg.config import Config
from llm4seg.training.run import Row
from llm4seg.utils.extras import require

NEEDS = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}  # tracking.to: the package


class Tracker(Protocol):
    """Who is told of a training's epochs, in order, each once, also over interruptions."""

    def row(self, row: Row) -> None:
        """An epoch's row; without `val_*` where it had no validation."""

    def picture(self, epoch: int, place: int, path: Path) -> None:
        """A picture (PNG) of a validation case, the first at place 0, after the row of its epoch."""

    def close(self, finished: bool) -> None:
        """The training has ended, or goes on later."""


def check_installed(config: Config) -> None:
    """Raise InputError where the package of `tracking.to` is missing, with the command that installs it."""
    if (package := NEEDS.get(config.tracking.to)) is not None:
        require(package, f"tracking.to: {config.tracking.to}")


def build_tracker(config: Config, name: str, resume: str | None) -> tuple[Tracker, str] | None:
    """The tracker of `tracking.to`, and what makes a later process go on in the same run of it: `resume`.

    `name` is the training's. Trackers are imported here, since some take seconds.
    """
    build = _builder(config.tracking.to)
    return None if build is None else build(config, name, resume)


def _builder(to: str) -> Callable[[Config, str, str | None], tuple[Tracker, str]] | None:
    match to:
        case "dvclive":
            from llm4seg.tracking.dvclive_files import dvclive_files

            return dvclive_files
        case "tensorboard":
            from llm4seg.tracking.tensorboard_run import tensorboard_run

            return tensorboard_run
        case "mlflow":
            from llm4seg.tracking.mlflow_run import mlflow_run

            return mlflow_run
        case "wandb":
            from llm4seg.tracking.wandb_run import wandb_run

            return wandb_run
    return None


def metrics(row: Row) -> dict[str, float]:
    """What is drawn over the epochs: all of a row but its epoch."""
    return {name: value for name, value in row.items() if name != "epoch"}


def parameters(config: Config) -> dict[str, Any]:
    """The dotted parameters that decide a training."""
    plain = config.plain()
    return {
        dotted: value
        for section in ("data", "split", "model", "optimizer", "training", "engine")
        for dotted, value in _dotted(plain[section], section)
    }


def _dotted(values: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(values, dict) or not values:
        return [(name, values)]
    return [pair for key, value in values.items() for pair in _dotted(value, f"{name}.{key}")]
