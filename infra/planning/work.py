"""What params.yaml asks a cluster for, in epochs, and how long that takes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llm4seg.config import Config

REFERENCE = 256 * 256  # pixels of the images that prices.yaml's images_a_second counts


@dataclass(frozen=True)
class Work:
    """Runs of one kind; `at_once`: how many may run at the same time."""

    name: str
    runs: int
    epochs: int  # of all runs together
    at_once: int


def work(config: Config, gpus: int) -> Iterator[Work]:
    """The training, and the search and study that are switched on, on so many GPUs. Searches: at most so much."""
    most = config.cluster.most
    room = max(1, gpus // most)
    if config.search.trials:
        epochs = config.search.trials * config.search.epochs
        if config.search.total_epochs is not None:
            epochs = min(epochs, config.search.total_epochs)
        yield Work("search, at most", config.search.trials, epochs, min(room, config.cluster.trials))
    yield Work("train", 1, config.training.epochs, 1)
    if config.study.repeats:
        each = config.study.repeats * max(1, len(config.study.folds))
        epochs = each * sum(config.arm(name).training.epochs for name in config.study.arms)
        yield Work("study", each * len(config.study.arms), epochs, room)


def gpu_hours(one: Work, epoch_seconds: float, start_seconds: float, workers: int) -> float:
    """Hours of GPUs that are lent, whether they compute or start: epochs cost the same however many share them."""
    return (one.epochs * epoch_seconds + one.runs * workers * start_seconds) / 3600


def hours(one: Work, epoch_seconds: float, start_seconds: float, workers: int) -> float:
    """Hours by the clock, were speed to grow with the workers of a run as it does at best."""
    rounds = math.ceil(one.runs / one.at_once)
    epochs = one.epochs / one.runs * rounds
    return (epochs * epoch_seconds / workers + rounds * start_seconds) / 3600


def guessed_epoch(images: int, size: tuple[int, ...], images_a_second: float, speed: float) -> float:
    """Seconds of an epoch on one GPU, from the table's guess; small images go no faster than a quarter of 256 x 256."""
    share = max(0.25, math.prod(size) / REFERENCE)
    return images * share / (images_a_second * speed)
