"""What a cluster's runs take: GPU hours and hours by the clock first, money and quota from them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from infra.planning.fleet import Fleet, Workers
from infra.planning.prices import MachineType, Prices
from infra.planning.workload import workloads
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
class Quota:
    """So many vCPUs or GPUs that an account must be allowed, for nodes of one kind."""

    nodes: str
    amount: int
    unit: str
    name: str


def gpus(fleet: Fleet, workers: tuple[Workers, ...]) -> int:
    """The GPUs of as many workers of one type as there may be; one's own machines count as having one each."""
    machine = workers[0].machine
    return min(sum(one.gpus for one in workers), fleet.most * (machine.gpus if machine else 1))


def lines(config: Config, prices: Prices, fleet: Fleet, workers: tuple[Workers, ...], seconds: float) -> Iterator[Line]:
    """What takes how long, if all of it runs on workers of one type that take `seconds` for an epoch on one GPU."""
    machine, nodes = workers[0].machine, 0
    for one in workloads(config, gpus(fleet, workers)):
        of_this = math.ceil(one.gpus / (machine.gpus if machine else 1))
        nodes = max(nodes, of_this)
        times = (seconds, prices.start_seconds)
        yield Line(one.name, one.runs, one.epochs, one.gpu_hours(*times), one.hours(*times), of_this)
    if machine:
        lasts = (prices.node_start_minutes + fleet.idle_minutes) / 60
        yield Line("nodes: start, idle at the end", 0, 0, nodes * machine.gpus * lasts, lasts, nodes)


def cost(found: list[Line], fleet: Fleet, machine: MachineType, spot: bool) -> tuple[float, float]:
    """USD of the workers, and of the head, which is there all the time and never a spot machine."""
    node_hours, hours = sum(one.hours * one.nodes for one in found), sum(one.hours for one in found)
    return node_hours * machine.price(spot), hours * fleet.head.on_demand if fleet.head else 0.0


def quotas(prices: Prices, fleet: Fleet) -> Iterator[Quota]:
    """As much as the file may start of each kind."""
    if fleet.head:
        yield _quota(prices, "head", fleet.head, 1, spot=False)
    for one in fleet.workers:
        if one.machine:
            yield _quota(prices, one.name, one.machine, min(one.count, fleet.most), one.spot)


def _quota(prices: Prices, nodes: str, machine: MachineType, count: int, spot: bool) -> Quota:
    known = prices.quotas[machine.quota]
    each = machine.vcpus if known["unit"] == "vCPU" else machine.gpus
    return Quota(nodes, count * each, known["unit"], known["spot" if spot else "on_demand"])
