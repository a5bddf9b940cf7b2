"""What trackers are told: metrics of an epoch, parameters of a training."""

from typing import Any

from llm4seg.config import Config
from llm4seg.training.run import Row


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
