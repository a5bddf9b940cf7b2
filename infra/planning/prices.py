"""The dated table of prices, infra/prices.yaml or one of the user's own, read."""

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.launchers import read
from llm4seg.utils.errors import InputError

FILE = Path(__file__).parents[1] / "prices.yaml"
OLD = 90  # days, after which prices are to be looked up again


@dataclass(frozen=True)
class MachineType:
    """A machine type: USD an hour, GiB of memory of each GPU, and how its GPU compares with an L4."""

    name: str
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

    file: Path
    date: datetime.date
    region: str
    types: dict[str, MachineType]
    quotas: dict[str, dict[str, str]]
    start_seconds: float
    node_start_minutes: float
    images_a_second: float
    shortest_step_ms: float

    def machine(self, name: str, where: str) -> MachineType:
        """The type of that name; `where` is the field that names it. Raises InputError."""
        if name not in self.types:
            raise InputError(f"{where}: found {name!r}, allowed: {', '.join(self.types)} (the table {self.file.name})")
        return self.types[name]

    def age(self, today: datetime.date) -> int:
        """Days since somebody looked the prices up."""
        return (today - self.date).days


def read_prices(file: Path = FILE) -> Prices:
    """The table. Raises InputError naming what one of the user's own lacks or has too much."""
    table = read(file)[0]
    _check_fields(f"{file}: ", table, Prices, {"file"})
    if not isinstance(table["date"], datetime.date):
        raise InputError(f"{file}: date: found {table['date']!r}, allowed: the day of the prices, such as 2026-01-31")
    for name, values in table["types"].items():
        _check_fields(f"{file}: types.{name}.", values, MachineType, {"name"})
    types = {name: MachineType(name, **values) for name, values in table.pop("types").items()}
    return Prices(file=file, types=types, **table)


def _check_fields(where: str, found: dict[str, Any], kind: type, given: set[str]) -> None:
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in given}
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    for name in sorted((found.keys() - fields) | (needed - found.keys())):
        raise InputError(f"{where}{name}: found {found.get(name, 'none')!r}, allowed: as in infra/prices.yaml")
