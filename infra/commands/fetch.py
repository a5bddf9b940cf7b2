"""Fetch a job's results: dvc.lock, metrics and outputs, or the experiments of `dvc exp run`.

Needs the bucket alone: the job may still run (then what is finished comes), or its cluster be gone. Nothing that was
changed here since the job was sent is overwritten. Without a job: list those with results in the bucket.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.jobs.fetch_results import ResultFetcher
from infra.jobs.job_spec import NAME
from infra.jobs.results import JobResults
from llm4seg.utils.errors import InputError

EXAMPLE = "fetch llm4seg-20260131-120000-0a1b2c3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="[CLUSTER] JOB ...", help="the cluster is not needed, so it may be left out"
    )


def run(options: argparse.Namespace) -> None:
    results = JobResults.open(Path.cwd())
    for job in _jobs(options.words):
        ResultFetcher(Path.cwd(), results).fetch(job, options.dry_run)
    if not options.words:
        _list(results)


def _jobs(words: list[str]) -> list[str]:
    """All words but a cluster before them. Raises InputError for what else is no job, before any is fetched."""
    cluster = len(words) > 1 and not NAME.fullmatch(words[0])
    jobs = words[1:] if cluster else words
    if others := [word for word in jobs if not NAME.fullmatch(word)]:
        raise InputError(f"found {others[0]}, allowed: names of jobs; `python -m infra fetch` lists them")
    return jobs


def _list(results: JobResults) -> None:
    """Print a line for each job."""
    table = Table("job", "state", "at", "by", "command")
    for job in results.jobs():
        table.add_row(job, *_row(results, job))
    if table.row_count:
        Console().print(table)
    else:
        print("fetch: no job has left anything in the bucket yet")


def _row(results: JobResults, job: str) -> tuple[str, ...]:
    """A job's row in the table; one that was killed early has left no record of this."""
    result = results.result_if_any(job)
    if result is None:
        return ("?",) * 4
    return result["state"], result["at"], result["user"], " ".join(result["command"])
