"""Bring a job's results home: dvc.lock, metrics and outputs, or the experiments of `dvc exp run`.

Needs the bucket alone: the job may still run (then what is finished comes), or its cluster be gone. Nothing that was
changed here since the job was sent is overwritten. Without a job: list those whose results are in the bucket.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.jobs.home import Home
from infra.jobs.shelf import Shelf

EXAMPLE = "fetch llm4seg-20260131-120000-0a1b2c3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="[CLUSTER] JOB", help="the cluster is not asked, so it may be left out"
    )


def run(options: argparse.Namespace) -> None:
    shelf = Shelf.of(Path.cwd())
    if options.words:
        Home(Path.cwd(), shelf).fetch(options.words[-1], options.dry_run)
    else:
        _list(shelf)


def _list(shelf: Shelf) -> None:
    table = Table("job", "state", "at", "by", "command")
    for job in shelf.jobs():
        result = shelf.result(job)
        table.add_row(job, result["state"], result["at"], result["user"], " ".join(result["command"]))
    Console().print(table)
