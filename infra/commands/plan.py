"""Estimate what params.yaml takes on a cluster: GPU hours first, then money and quota.

Starts nothing and calls no cloud, with or without --dry-run. All figures are estimates: time from --epoch-seconds, or
from a guess; prices from a dated table. To time an epoch on one GPU, train a few there: the stage prints its seconds of
training (they are in .cache/train_seconds.json, too), to be divided by the epochs. Or, with study.repeats above 0,
`python -m pipelines.study --plan` there.
"""

import argparse
import datetime
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from infra.launchers import add_cluster
from infra.planning.estimate import Line, Quota, cost, gpus, lines, quotas
from infra.planning.fleet import Fleet, Workers, read_fleet
from infra.planning.prices import FILE, OLD, MachineType, Prices, read_prices
from infra.planning.workload import guessed_epoch
from llm4seg.config import Config
from llm4seg.utils.errors import InputError

EXAMPLE = "plan infra/aws.yaml --epoch-seconds 12"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--epoch-seconds", type=float, metavar="S", help="of one epoch on one of the cluster's GPUs")
    parser.add_argument("--instance-type", metavar="TYPE", help="of the workers, in the place of the file's")
    parser.add_argument(
        "--prices", type=Path, default=FILE, metavar="FILE", help="a table of yours, as infra/prices.yaml"
    )


def run(options: argparse.Namespace) -> None:
    seconds = options.epoch_seconds
    if seconds is not None and not 0 < seconds < math.inf:
        raise InputError(f"--epoch-seconds: found {seconds:g}, allowed: more than 0")
    prices, config = read_prices(options.prices), Config.load(options.params)
    fleet, console = read_fleet(options.cluster, prices, options.instance_type), Console(highlight=False)
    for workers in fleet.machines().values():
        show(console, config, prices, fleet, workers, seconds)
    if needed := list(quotas(prices, fleet)):
        console.print(quota_table(needed), "")
    for note in [*time_notes(config, seconds), *price_notes(prices, fleet, datetime.date.today())]:
        console.print(f"- {note}", markup=False, soft_wrap=True)


def show(
    console: Console,
    config: Config,
    prices: Prices,
    fleet: Fleet,
    workers: tuple[Workers, ...],
    epoch_seconds: float | None,
) -> None:
    """How long everything takes on workers of one type, and what it costs."""
    machine = workers[0].machine
    seconds = epoch_seconds or guessed_epoch(config, prices, machine.speed if machine else 1.0)
    found = list(lines(config, prices, fleet, workers, seconds))
    kind = f"{machine.name} ({machine.gpus} {machine.gpu} of {machine.gpu_gib:g} GiB), " if machine else ""
    names = " or ".join(one.name for one in workers)
    console.print(
        f"[bold]{names}[/]: {kind}{gpus(fleet, workers)} GPUs, {seconds:.3g} s an epoch on one", soft_wrap=True
    )
    console.print(time_table(found), "")
    for market in ("spot", "on demand") if machine else ():
        assert machine is not None
        console.print(_money(found, fleet, machine, market), soft_wrap=True)
    console.print()


def _money(found: list[Line], fleet: Fleet, machine: MachineType, market: str) -> str:
    of_workers, of_head = cost(found, fleet, machine, market == "spot")
    head = f"head {of_head:.2f}" if fleet.head else "head not known"
    return f"estimated USD, workers {market}: {of_workers + of_head:.2f} (workers {of_workers:.2f}, {head})"


def table_of(title: str, *headings: str) -> Table:
    """The first column names what the others count."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def time_table(found: Iterable[Line]) -> Table:
    table = table_of("", "estimated", "GPU hours", "hours", "nodes", "runs", "epochs")
    gpu_hours = hours = 0.0
    for one in found:
        counts = (str(one.nodes), str(one.runs or ""), str(one.epochs or ""))
        table.add_row(one.name, f"{one.gpu_hours:.2f}", f"{one.hours:.2f}", *counts)
        gpu_hours, hours = gpu_hours + one.gpu_hours, hours + one.hours
    table.add_section()
    table.add_row("in all", f"{gpu_hours:.2f}", f"{hours:.2f}", "", "", "")
    return table


def quota_table(found: Iterable[Quota]) -> Table:
    table = table_of("Quota to ask for, if the account has less", "nodes", "at least", "of")
    table.columns[2].justify = "left"
    table.columns[2].no_wrap = False
    for one in found:
        table.add_row(one.nodes, f"{one.amount} {one.unit}{'' if one.amount == 1 else 's'}", one.name)
    return table


def time_notes(config: Config, epoch_seconds: float | None) -> Iterator[str]:
    if epoch_seconds is None:
        yield "Time is a guess, the LLM's size left out: time an epoch and give --epoch-seconds (`--help` says how)."
    if config.cluster.most > 1:
        yield "Workers are taken to share an epoch without loss; docs/notes/scaling.md says what is lost."
    if config.search.trials and config.search.asha:
        yield "ASHA ends most trials of a search early: it will take less."
    if config.study.repeats:
        yield "Runs of a study that have finished before are not done again, but are counted here."
    yield "Memory: `python -m llm4seg.tools.memory_estimate` prints what a worker takes with each engine."


def price_notes(prices: Prices, fleet: Fleet, today: datetime.date) -> Iterator[str]:
    if not any(fleet.machines()):
        yield "Machines of one's own: nothing to pay here; each is taken to have one GPU."
        return
    table = f"{prices.file.name}, list prices of {prices.date} in {prices.region}"
    yield f"Prices: {table}; the file says how to check them."
    if (age := prices.age(today)) > OLD:
        yield f"WARNING: those prices are {age} days old: look them up, and give a table of yours with --prices FILE."
    yield "Not counted: disks, bucket, traffic, addresses, the head after the last run, lost work of spot nodes."
    if fleet.head is None:
        yield "Not counted: the head's machine, which the file does not name, and the Kubernetes cluster's own fee."
