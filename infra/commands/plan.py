"""Say what params.yaml takes on a cluster: GPU hours, time, money, memory, quota.

Starts nothing and asks no cloud. All figures are estimates: prices come from the dated table infra/prices.yaml, and
time from --epoch-seconds, or from a guess in that table. To time an epoch: the column `seconds` of outputs/history.csv
after a run on that GPU, or `python -m pipelines.study --plan` there.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.launchers import add_cluster
from infra.planning.fleet import Fleet, Workers, fleet
from infra.planning.memory import memory
from infra.planning.prices import Prices, read_prices
from infra.planning.work import gpu_hours, guessed_epoch, hours, work
from llm4seg.config import Config
from llm4seg.errors import InputError

EXAMPLE = "plan infra/aws.yaml --epoch-seconds 12"
MONTH = 730.0  # hours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--epoch-seconds", type=float, metavar="S", help="of one epoch on one of the cluster's GPUs")
    parser.add_argument("--instance-type", metavar="TYPE", help="of the workers, in the place of the file's")


def run(options: argparse.Namespace) -> None:
    prices, config = read_prices(), Config.load(options.params)
    if options.epoch_seconds is not None and not options.epoch_seconds > 0:
        raise InputError(f"--epoch-seconds: found {options.epoch_seconds:g}, allowed: more than 0")
    lent = fleet(options.cluster, prices, options.instance_type)
    console = Console()
    for workers in lent.workers:
        for spot in (True, False) if workers.spot is None and workers.machine else (bool(workers.spot),):
            console.print(of_workers(config, prices, lent, workers, spot, options.epoch_seconds))
    for line in notes(config, prices, lent, options.epoch_seconds):
        console.print(line, highlight=False, soft_wrap=True)


def of_workers(
    config: Config, prices: Prices, lent: Fleet, workers: Workers, spot: bool, epoch_seconds: float | None
) -> Table:
    """What everything takes if all of it runs on these workers."""
    machine, each = workers.machine, config.cluster.most
    gpus_a_node = machine.gpus if machine else 1
    gpus = min(workers.count, lent.most) * gpus_a_node
    market = "" if machine is None else f", {machine.name}, {'spot' if spot else 'on demand'}"
    table = Table(title=f"{workers.name}{market}: {gpus} GPUs, {each} a run (estimates)", title_justify="left")
    for heading in ("", "runs", "epochs", "GPU hours", "hours", "nodes", "USD"):
        table.add_column(heading, justify="left" if not heading else "right")
    seconds = epoch_seconds or guess(config, prices, machine.speed if machine else 1.0)
    total = [0.0, 0.0, 0.0]
    for one in work(config, gpus):
        lasts = hours(one, seconds, prices.start_seconds, each)
        nodes = math.ceil(one.at_once * each / gpus_a_node)
        costs = nodes * lasts * hourly(workers, spot, prices) + lasts * at_head(lent, prices)
        row = [gpu_hours(one, seconds, prices.start_seconds, each), lasts, costs]
        total = [so_far + new for so_far, new in zip(total, row, strict=True)]
        table.add_row(
            one.name,
            str(one.runs),
            str(one.epochs),
            f"{row[0]:.2f}",
            f"{row[1]:.2f}",
            str(nodes),
            money(machine, costs),
        )
    table.add_section()
    table.add_row("in all", "", "", f"{total[0]:.2f}", f"{total[1]:.2f}", "", money(machine, total[2]))
    return table


def money(machine: object, costs: float) -> str:
    return "-" if machine is None else f"{costs:.2f}"


def hourly(workers: Workers, spot: bool, prices: Prices) -> float:
    """USD an hour of one node with its disk."""
    if workers.machine is None:
        return 0.0
    return workers.machine.price(spot) + disk(workers.machine.cloud, workers.disk_gb, prices)


def at_head(lent: Fleet, prices: Prices) -> float:
    """USD an hour of the head, which is never a spot machine."""
    return lent.head.on_demand + disk(lent.head.cloud, lent.head_disk_gb, prices) if lent.head else 0.0


def disk(cloud: str, gigabytes: float, prices: Prices) -> float:
    return prices.disk_gb_month[cloud] * gigabytes / MONTH


def guess(config: Config, prices: Prices, speed: float) -> float:
    """Seconds of an epoch for who has timed none."""
    from llm4seg.data.split import read_split

    if not config.paths.split.exists():
        raise InputError(f"{config.paths.split}: not there; run `dvc repro split`, or give --epoch-seconds")
    images = len(read_split(config.paths.split).train)
    return guessed_epoch(images, config.data.size, prices.images_a_second, speed)


def notes(config: Config, prices: Prices, lent: Fleet, epoch_seconds: float | None) -> Iterator[str]:
    """What the tables are made of, what to ask for, and whether it fits."""
    yield from quotas(config, prices, lent)
    yield from memory(config, {one.machine for one in lent.workers if one.machine})
    if epoch_seconds is None:
        yield "Time is a guess (images_a_second in infra/prices.yaml): time an epoch and give --epoch-seconds."
    if any(one.machine for one in lent.workers):
        yield f"Prices are list prices of {prices.date}, spot ones what was often asked."
        yield "The bucket, traffic and idle time are left out."
        if lent.head is None:
            yield "The head and the cluster's own fee are not counted: their machines are not in the file."
    else:
        yield "Machines of one's own: nothing to pay here."


def quotas(config: Config, prices: Prices, lent: Fleet) -> Iterator[str]:
    """What a new account must ask for: as much as the file may start of each kind."""
    for one in lent.workers:
        if one.machine is None or not one.machine.quota:
            continue
        quota, nodes = prices.quotas[one.machine.quota], min(one.count, lent.most)
        amount = nodes * (one.machine.vcpus if quota["unit"] == "vCPU" else one.machine.gpus)
        for market in ("spot", "on_demand") if one.spot is None else ("spot" if one.spot else "on_demand",):
            yield f"Quota for {one.name}: {amount} {quota['unit']} of {quota[market]}."
