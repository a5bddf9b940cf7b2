"""The table of prices: infra/prices.yaml, read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.launchers import read
from llm4seg.utils.errors import InputError

FILE = Path(__file__).parents[1] / "prices.yaml"
MONTH = 730.0  # hours


@dataclass(frozen=True)
class MachineType:
    """A machine type of a cloud: USD an hour, GiB of memory of each GPU, and how its GPU compares with an L4."""

    name: str
    cloud: str
    vcpus: int
    on_demand: float
    spot: float
    quota: str
    gpus: int = 0
    gpu: str = ""
    gpu_gib: float = 0.0
    speed: float = 1.0

    def price(self, spot: bool) -> float:
        return self.spot if spot else self.on_demand


@dataclass(frozen=True)
class Prices:
    """All of the table."""

    date: str
    regions: dict[str, str]
    types: dict[str, MachineType]
    quotas: dict[str, dict[str, str]]
    disk_gb_month: dict[str, float]
    start_seconds: float
    node_start_minutes: float
    images_a_second: float
    shortest_step_ms: float

    def machine(self, name: str, where: str, cloud: str | None) -> MachineType:
        """The type of that name, of one cloud or of any; `where` is the field that names it. Raises InputError."""
        known = [one.name for one in self.types.values() if cloud in (None, one.cloud)]
        if name not in known:
            raise InputError(f"{where}: found {name!r}, allowed: {', '.join(known)} (the table infra/prices.yaml)")
        return self.types[name]

    def disk(self, machine: MachineType, gigabytes: float) -> float:
        """USD an hour of a disk of the machine's cloud."""
        return self.disk_gb_month[machine.cloud] * gigabytes / MONTH


def read_prices(file: Path = FILE) -> Prices:
    """The table as it is in the repository."""
    table: dict[str, Any] = read(file)[0]
    types = {name: MachineType(name, **values) for name, values in table.pop("types").items()}
    return Prices(date=str(table.pop("date")), types=types, **table)
