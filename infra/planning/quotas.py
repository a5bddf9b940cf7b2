"""What an account must be allowed before a cluster can have all of its machines."""

from collections.abc import Iterator
from dataclasses import dataclass

from infra.planning.fleet import Fleet
from infra.planning.prices import MachineType, Prices

EVERYWHERE = "GPUS_ALL_REGIONS"  # Google's limit beside that of the region


@dataclass(frozen=True)
class Quota:
    """So many vCPUs or GPUs of a quota, for nodes of one kind."""

    nodes: str
    amount: int
    unit: str
    name: str


def quotas(prices: Prices, fleet: Fleet) -> Iterator[Quota]:
    """As much as the file may start of each kind."""
    if fleet.head:
        yield _quota(prices, "head", fleet.head, 1, spot=False)
    machines = [one for one in fleet.workers if one.machine]
    for one in machines:
        assert one.machine is not None
        yield _quota(prices, one.name, one.machine, min(one.count, fleet.most), one.spot)
    google = [one.machine.gpus for one in machines if one.machine and one.machine.cloud == "gcp"]
    if google:
        yield Quota("all workers", fleet.most * max(google), "GPU", EVERYWHERE)


def _quota(prices: Prices, nodes: str, machine: MachineType, count: int, spot: bool) -> Quota:
    known = prices.quotas[machine.quota]
    each = machine.vcpus if known["unit"] == "vCPU" else machine.gpus
    return Quota(nodes, count * each, known["unit"], known["spot" if spot else "on_demand"])
