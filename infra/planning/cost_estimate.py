"""What a cluster's runs cost: hours of workers, of the head and of their disks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from infra.planning.fleet import Fleet, Workers
from infra.planning.prices import Prices
from infra.planning.workload import Workload, workloads
from llm4seg.config import Config


@dataclass(frozen=True)
class Line:
    """A kind of runs, or what comes besides: how long it takes and how many nodes it holds for so long."""

    name: str
    runs: int
    epochs: int
    gpu_hours: float
    hours: float
    nodes: int


@dataclass(frozen=True)
class Cost:
    """USD."""

    workers: float
    head: float
    disks: float

    @property
    def whole(self) -> float:
        return self.workers + self.head + self.disks


def gpus(fleet: Fleet, workers: tuple[Workers, ...]) -> int:
    """The GPUs of as many workers of one type as there may be; one's own machines count as having one each."""
    machine = workers[0].machine
    return min(sum(one.gpus for one in workers), fleet.most * (machine.gpus if machine else 1))


def lines(config: Config, prices: Prices, fleet: Fleet, workers: tuple[Workers, ...], seconds: float) -> Iterator[Line]:
    """What takes how long, if all of it runs on workers of one type that take `seconds` for an epoch on one GPU."""
    machine, nodes = workers[0].machine, 0
    for one in workloads(config, gpus(fleet, workers)):
        of_this = _nodes(one, machine.gpus if machine else 1)
        nodes = max(nodes, of_this)
        times = (seconds, prices.start_seconds)
        yield Line(one.name, one.runs, one.epochs, one.gpu_hours(*times), one.hours(*times), of_this)
    if machine:
        lasts = (prices.node_start_minutes + fleet.idle_minutes) / 60
        yield Line("nodes: start, idle at the end", 0, 0, nodes * machine.gpus * lasts, lasts, nodes)


def _nodes(one: Workload, gpus_a_node: int) -> int:
    return math.ceil(one.gpus / gpus_a_node)


def cost(found: list[Line], prices: Prices, fleet: Fleet, workers: Workers, spot: bool) -> Cost:
    """Of all lines; the head is there all the time, and never a spot machine."""
    assert workers.machine is not None, "one's own machines cost nothing"
    node_hours, hours = sum(one.hours * one.nodes for one in found), sum(one.hours for one in found)
    disks = node_hours * prices.disk(workers.machine, workers.disk_gb)
    head = 0.0
    if fleet.head:
        head = hours * fleet.head.on_demand
        disks += hours * prices.disk(fleet.head, fleet.head_disk_gb)
    return Cost(node_hours * workers.machine.price(spot), head, disks)
