"""The table of prices: infra/prices.yaml, read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.launchers import read
from llm4seg.errors import InputError

FILE = Path(__file__).parents[1] / "prices.yaml"


@dataclass(frozen=True)
class MachineType:
    """A machine that a cloud lends: USD an hour, GiB of memory of each GPU, and how its GPU compares with an L4."""

    name: str
    cloud: str
    vcpus: int
    on_demand: float
    spot: float
    gpus: int = 0
    gpu: str = ""
    gpu_gib: float = 0.0
    speed: float = 1.0
    quota: str = ""

    def price(self, spot: bool) -> float:
        return self.spot if spot else self.on_demand


@dataclass(frozen=True)
class Prices:
    """All of the table."""

    date: str
    types: dict[str, MachineType]
    quotas: dict[str, dict[str, str]]
    disk_gb_month: dict[str, float]
    start_seconds: float
    images_a_second: float

    def machine(self, name: str, where: str) -> MachineType:
        """The type of that name; `where` is the field that names it. Raises InputError."""
        if name not in self.types:
            raise InputError(f"{where}: found {name!r}, allowed: {', '.join(self.types)} (the table infra/prices.yaml)")
        return self.types[name]


def read_prices(file: Path = FILE) -> Prices:
    """The table as it is in the repository."""
    table: dict[str, Any] = read(file)[0]
    types = {name: MachineType(name, **values) for name, values in table["types"].items()}
    return Prices(
        date=str(table["date"]),
        types=types,
        quotas=table["quotas"],
        disk_gb_month=table["disk_gb_month"],
        start_seconds=table["start_seconds"],
        images_a_second=table["images_a_second"],
    )
