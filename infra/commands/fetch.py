"""Fetch a job's results: the experiments of `dvc exp run`, or dvc.lock, metrics and outputs.

Needs the bucket alone: the job may still run (then what is finished comes), or its cluster be gone. Nothing that was
changed here since the job was sent is overwritten. Without a job: list those with results in the bucket.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.jobs.fetch_results import fetch
from infra.jobs.job_spec import NAME
from infra.jobs.results import RESULT, JobResults
from llm4seg.utils.errors import InputError

EXAMPLE = "fetch llm4seg-20260131-120000-0a1b2c3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="as `submit` printed it")


def run(options: argparse.Namespace) -> None:
    if others := [word for word in options.jobs if not NAME.fullmatch(word)]:
        raise InputError(f"found {others[0]}, allowed: names of jobs; `python -m infra fetch` lists them")
    results = JobResults.open(Path.cwd())
    for job in options.jobs:
        fetch(Path.cwd(), results, job, options.dry_run)
    if not options.jobs:
        _list(results)


def _list(results: JobResults) -> None:
    """Print a line for each job. Of one that was killed early there is no record of what it was."""
    table = Table("job", "state", "at", "by", "command")
    for job in results.files():
        if RESULT in results.files(job):
            found = results.result(job)
            table.add_row(job, found["state"], found["at"], found["user"], " ".join(found["command"]))
        else:
            table.add_row(job, *"????")
    if table.row_count:
        Console().print(table)
    else:
        print("fetch: no job has left anything in the bucket yet")
