"""The dated table of what GPUs cost: infra/prices.yaml, or one of the user's own."""

import datetime
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.launchers import read
from llm4seg.utils.errors import InputError

FILE = Path(__file__).parents[1] / "prices.yaml"
OLD = 90  # days, after which prices are to be looked up again
MARKETS = ("on_demand", "spot")


@dataclass(frozen=True)
class Prices:
    """USD for one GPU and hour, by its kind and market, looked up at a date."""

    file: Path
    date: datetime.date
    gpus: dict[str, dict[str, float]]

    def of(self, gpu: str) -> dict[str, float]:
        """The prices of a kind of GPU, by market. Raises InputError where the table has none."""
        if gpu not in self.gpus:
            raise InputError(f"--gpu: found {gpu}, allowed: {', '.join(self.gpus)} (the table {self.file})")
        return {market: self.gpus[gpu][market] for market in MARKETS}

    def warning(self, today: datetime.date) -> str | None:
        """What to say of prices that are older than OLD days."""
        if (age := (today - self.date).days) <= OLD:
            return None
        return f"WARNING: those prices are {age} days old: look them up, and give a table of yours with --prices FILE."


def read_prices(file: Path = FILE) -> Prices:
    """The table. Raises InputError naming the field of one of the user's own that is missing or is no price."""
    (table, *_) = read(file)
    date, gpus = table.get("date"), table.get("gpus")
    if type(date) is not datetime.date:
        raise InputError(f"{file}: date: found {date!r}, allowed: the day of the prices, such as 2026-01-31")
    if not isinstance(gpus, dict) or not gpus:
        raise InputError(f"{file}: gpus: found {gpus!r}, allowed: kinds of GPUs with their prices, as in {FILE.name}")
    for gpu, of_it in gpus.items():
        _check(f"{file}: gpus.{gpu}", of_it)
    return Prices(file, date, {str(gpu): of_it for gpu, of_it in gpus.items()})  # 4090 is a number in YAML


def _check(where: str, prices: Any) -> None:
    for market in MARKETS:
        price = prices.get(market) if isinstance(prices, dict) else None
        if not isinstance(price, int | float) or isinstance(price, bool) or not 0 < price < math.inf:
            raise InputError(f"{where}.{market}: found {price!r}, allowed: USD an hour, more than 0")
