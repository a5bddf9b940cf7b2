"""Estimate what params.yaml takes on a cluster: GPU hours, time, money, memory, quota.

Starts nothing and calls no cloud, with or without --dry-run. All figures are estimates: prices come from the dated
table infra/prices.yaml, and time from --epoch-seconds, or from a guess in that table. To time an epoch on one GPU,
train a few there: the stage prints its seconds of training (they are in .cache/train_seconds.json, too), to be
divided by the epochs. Or, with study.repeats above 0, `python -m pipelines.study --plan` there.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from infra.launchers import add_cluster
from infra.planning.cost_estimate import cost, gpus, lines
from infra.planning.fleet import Fleet, Workers, read_fleet
from infra.planning.prices import Prices, read_prices
from infra.planning.quotas import quotas
from infra.planning.tables import cost_table, memory_table, quota_table, time_table
from infra.planning.workload import guessed_epoch
from llm4seg.config import Config
from llm4seg.utils.errors import InputError, UserError

EXAMPLE = "plan infra/aws.yaml --epoch-seconds 12"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--epoch-seconds", type=float, metavar="S", help="of one epoch on one of the cluster's GPUs")
    parser.add_argument("--instance-type", metavar="TYPE", help="of the workers, in the place of the file's")


def run(options: argparse.Namespace) -> None:
    seconds = options.epoch_seconds
    if seconds is not None and not 0 < seconds < math.inf:
        raise InputError(f"--epoch-seconds: found {seconds:g}, allowed: more than 0")
    prices, config = read_prices(), Config.load(options.params)
    fleet, console = read_fleet(options.cluster, prices, options.instance_type), Console(highlight=False)
    for workers in fleet.machines().values():
        show(console, config, prices, fleet, workers, seconds)
    if needed := list(quotas(prices, fleet)):
        console.print(quota_table(needed), "")
    notes = [*memory(console, config, fleet), *time_notes(config, seconds), *price_notes(prices, fleet)]
    for note in notes:
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
    kind = f"{machine.name} ({machine.gpus} {machine.gpu}), " if machine else ""
    names = " or ".join(one.name for one in workers)
    console.print(
        f"[bold]{names}[/]: {kind}{gpus(fleet, workers)} GPUs, {seconds:.3g} s an epoch on one", soft_wrap=True
    )
    console.print(time_table(found), "")
    if machine:
        spot, on_demand = (cost(found, prices, fleet, workers[0], market) for market in (True, False))
        console.print(cost_table(spot, on_demand, fleet.head is not None), "")


def memory(console: Console, config: Config, fleet: Fleet) -> Iterator[str]:
    """A table of what a worker needs on each kind of GPU, or a note why that is not known."""
    machines = {(one.gpu, one.gpu_gib): one for one in fleet.machines() if one and one.gpus}
    if not machines:
        yield "Memory: `python -m llm4seg.tools.memory_estimate` says what a worker needs; these GPUs are not known."
        return
    from infra.planning.memory import fit, sizes_of

    try:
        sizes = sizes_of(config)
    except UserError as error:
        yield f"Memory is not known yet: {error}"
        return
    console.print(memory_table(fit(config, sizes, one) for one in machines.values()), "")
    yield "Memory of activations is an estimate; 15% of a GPU are left to CUDA and its kernels."


def time_notes(config: Config, epoch_seconds: float | None) -> Iterator[str]:
    if epoch_seconds is None:
        yield "Time is a guess, the LLM's size left out: time an epoch and give --epoch-seconds (`--help` says how)."
    if config.cluster.most > 1:
        yield "Workers are taken to share an epoch without loss; docs/notes/scaling.md says what is lost."
    if config.search.trials and config.search.asha:
        yield "ASHA ends most trials of a search early: it will take less."
    if config.study.repeats:
        yield "Runs of a study that have finished before are not done again, but are counted here."


def price_notes(prices: Prices, fleet: Fleet) -> Iterator[str]:
    clouds = {one.cloud for one in fleet.machines() if one}
    if not clouds:
        yield "Machines of one's own: nothing to pay here; each is taken to have one GPU."
        return
    where = ", ".join(sorted(prices.regions[cloud] for cloud in clouds))
    yield f"Prices: infra/prices.yaml, list prices of {prices.date} in {where}; the file says how to check them."
    yield "Not counted: bucket, traffic, public addresses, the head after the last run, lost work of spot nodes."
    if not fleet.knows_disks:
        yield "Not counted: disks whose size the file leaves to their image (VolumeSize, diskSizeGb)."
    if fleet.head is None:
        yield "Not counted: the head's machine, which the file does not name, and the Kubernetes cluster's own fee."
