"""The workload that params.yaml gives a cluster, in epochs, and how long it takes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llm4seg.config import Config
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class Workload:
    """Runs of one kind: so many at the same time, on so many GPUs together."""

    name: str
    runs: int
    epochs: int  # of all runs together
    at_once: int
    gpus: int

    def gpu_hours(self, epoch_seconds: float, start_seconds: float) -> float:
        """Hours of GPUs in use, computing or starting: epochs cost the same however many GPUs share them."""
        return (self.epochs * epoch_seconds + self.runs * self.gpus / self.at_once * start_seconds) / 3600

    def hours(self, epoch_seconds: float, start_seconds: float) -> float:
        """Hours by the clock, were the speed of a run to grow with its GPUs as it does at best."""
        rounds = math.ceil(self.runs / self.at_once)
        alone = self.epochs / self.runs * epoch_seconds * self.at_once / self.gpus
        return rounds * (alone + start_seconds) / 3600


def workloads(config: Config, gpus: int) -> Iterator[Workload]:
    """The training, and the search and study that are switched on, on so many GPUs. Raises InputError for too few."""
    section = config.cluster
    if section.device == "cpu":
        raise InputError("cluster.device: found cpu, allowed for a plan: auto or cuda")
    if section.fewest > gpus:
        raise InputError(f"cluster.workers: found {section.fewest}, allowed: up to {gpus}, the cluster's GPUs")
    each = min(section.most, gpus)
    if config.search.trials:
        yield from _search(config, gpus, each)
    yield Workload("train", 1, config.training.epochs, 1, each)
    if config.study.repeats:
        yield _study(config, gpus, each)


def _search(config: Config, gpus: int, each: int) -> Iterator[Workload]:
    """At most so much: ASHA ends most trials before."""
    section, sharing = config.search, int(1 / config.cluster.gpus_per_worker)  # trials on one GPU
    if section.warm_start:
        yield Workload("search: the CNN alone", 1, config.training.epochs, 1, each)
    epochs = min(section.trials * section.epochs, section.total_epochs or math.inf)
    at_once = min(section.trials, config.cluster.trials, gpus // each * sharing)
    yield Workload("search, at most", section.trials, int(epochs), at_once, math.ceil(at_once / sharing) * each)


def _study(config: Config, gpus: int, each: int) -> Workload:
    """All of it: runs of an earlier study that are finished are not known here."""
    section = config.study
    of_an_arm = section.repeats * max(1, len(section.folds))
    runs = of_an_arm * len(section.chosen)
    epochs = of_an_arm * sum(config.arm(name).training.epochs for name in section.chosen)
    at_once = min(runs, gpus // each)
    return Workload("study", runs, epochs, at_once, at_once * each)
