"""Estimate what params.yaml takes: GPU hours, hours by the clock, and money.

Starts nothing and calls no cloud, with or without --dry-run. All figures are estimates. To time an epoch on one GPU,
train a few there: the stage prints its seconds of training (they are in .cache/train_seconds.json, too), to be divided
by the epochs. Or, with study.repeats above 0, `python -m pipelines.study --plan` there. Prices are from a dated table.
"""

import argparse
import datetime
import math
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from infra.planning.prices import FILE, read_prices
from infra.planning.workload import workloads
from llm4seg.config import Config
from llm4seg.utils.errors import InputError

EXAMPLE = "plan --epoch-seconds 12 --gpus 4 --gpu L4"
START_SECONDS = 60  # of a run, besides its epochs: Ray, imports, data, model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epoch-seconds", type=_above_zero, required=True, metavar="S", help="of one epoch on one GPU")
    parser.add_argument("--gpus", type=int, default=1, help="of all nodes together; default: %(default)s")
    parser.add_argument("--gpu", metavar="KIND", help="L4, ...: prints what it costs, too")
    parser.add_argument(
        "--prices", type=Path, default=FILE, metavar="FILE", help="a table of yours, as infra/prices.yaml"
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")


def _above_zero(word: str) -> float:
    number = float(word)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"found {word}, allowed: more than 0")
    return number


def run(options: argparse.Namespace) -> None:
    if options.gpus < 1:
        raise InputError(f"--gpus: found {options.gpus}, allowed: 1 or more")
    config = Config.load(options.params)
    console, times = Console(highlight=False), (options.epoch_seconds, START_SECONDS)
    table = Table("estimated", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("runs", "epochs", "GPU hours", "hours"):
        table.add_column(heading, justify="right")
    gpu_hours = hours = 0.0
    for one in workloads(config, options.gpus):
        took = one.gpu_hours(*times), one.hours(*times)
        table.add_row(one.name, str(one.runs), str(one.epochs), *(f"{value:.2f}" for value in took))
        gpu_hours, hours = gpu_hours + took[0], hours + took[1]
    table.add_section()
    table.add_row("in all", "", "", f"{gpu_hours:.2f}", f"{hours:.2f}")
    console.print(table)
    if options.gpu:
        _print_costs(console, options, gpu_hours, hours * options.gpus)
    for note in _notes(config):
        console.print(f"- {note}", markup=False, soft_wrap=True)


def _print_costs(console: Console, options: argparse.Namespace, in_use: float, to_the_end: float) -> None:
    """What GPU hours cost in each market, and a warning where nobody has looked the prices up for long."""
    prices = read_prices(options.prices)
    for market, price in prices.of(options.gpu).items():
        amounts = f"{in_use * price:.2f} of GPUs in use, {to_the_end * price:.2f} where all stay to the end"
        console.print(f"estimated USD, {options.gpu} {market.replace('_', ' ')}: {amounts}")
    console.print(f"- Prices: those of {prices.date} in {prices.file.name}.", soft_wrap=True)
    if warning := prices.warning(datetime.date.today()):
        console.print(f"- {warning}", soft_wrap=True)


def _notes(config: Config) -> Iterator[str]:
    if config.cluster.most > 1:
        yield "Workers are taken to share an epoch without loss; docs/notes/scaling.md says what is lost."
    if config.search.trials and config.search.asha:
        yield "ASHA ends most trials of a search early: it will take less."
    if config.study.repeats:
        yield "Runs of a study that have finished before are not done again, but are counted here."
    yield "Memory: `python -m llm4seg.tools.memory_estimate` prints what a worker takes with each engine."
    yield "Not counted: nodes that start or wait idle, the head, disks, bucket, traffic, lost work of spot nodes."
