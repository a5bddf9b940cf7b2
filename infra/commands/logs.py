"""Show what a job prints, or what a cluster's autoscaler does.

A job's log is shown from its beginning, then followed to its end; the exit code is 0 if the job succeeded. With the
job alone, its cluster is the one that it was sent to from here. What a job of another checkout left is in the bucket.
"""

import argparse
import sys
from pathlib import Path

from infra.jobs.client import find, jobs_of
from infra.jobs.order import NAME
from infra.jobs.shelf import LOG, Shelf
from infra.jobs.watch import remembered, watch
from infra.launchers import launcher
from llm4seg.errors import InputError

EXAMPLE = "logs infra/aws.yaml llm4seg-20260131-120000-0a1b2c3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cluster", help="a cluster's file or the http address of its dashboard, or a job")
    parser.add_argument("job", nargs="?", help="without it: the log of the cluster's autoscaler")
    parser.add_argument(
        "--stop", action="store_true", help="ask the job to save a checkpoint and what is finished, and to leave"
    )


def run(options: argparse.Namespace) -> None:
    cluster, job = options.cluster, options.job
    if job is None and NAME.fullmatch(cluster):
        cluster, job = remembered(Path.cwd(), options.cluster), options.cluster
    if job is None:
        launcher(cluster).logs(options.dry_run)
    elif options.dry_run:
        print(f"would {'stop' if options.stop else 'follow'} {job} on {cluster or 'no cluster: what it left'}")
    elif cluster is None:
        _show_what_is_left(job)
    else:
        _follow(cluster, job, options.stop)


def _follow(cluster: str, job: str, stop: bool) -> None:
    if stop:
        with jobs_of(cluster) as client:
            find(client, job)
            client.stop_job(job)
    watch(cluster, job)


def _show_what_is_left(job: str) -> None:
    """The log in the bucket, and how the job ended."""
    shelf = Shelf.of(Path.cwd())
    result = shelf.result(job)
    sys.stdout.write(shelf.read(job, LOG).decode(errors="replace"))
    print(f"{job}: {result['state']}, as of {result['at']}", file=sys.stderr)
    if result["state"] != "succeeded":
        raise InputError(f"{job}: {result['state']}" + (f", exit code {code}" if (code := result["exit_code"]) else ""))
