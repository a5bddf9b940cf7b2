"""Show what a job prints, or what a cluster's autoscaler does.

A job's log is shown from its beginning, then followed to its end; the exit code is 0 if the job succeeded. With the
job alone, its cluster is the one that it was sent to from here; once it has ended, the log that it left in the bucket
is shown, whether the cluster is still there or not.
"""

import argparse
import sys
from pathlib import Path

from infra.jobs.client import cluster_of, job_client, job_info, watch
from infra.jobs.job_spec import NAME
from infra.jobs.results import LOG, JobResults
from infra.launchers import launcher
from llm4seg.utils.errors import InputError

EXAMPLE = "logs infra/aws.yaml llm4seg-20260131-120000-0a1b2c3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cluster", help="a cluster's file or the http address of its dashboard, or a job")
    parser.add_argument("job", nargs="?", help="without it: the log of the cluster's autoscaler")
    parser.add_argument(
        "--stop", action="store_true", help="send the job SIGTERM: it saves a checkpoint and what is finished, and ends"
    )


def run(options: argparse.Namespace) -> None:
    cluster, job = options.cluster, options.job
    if job is None and NAME.fullmatch(cluster):
        cluster, job = cluster_of(Path.cwd(), options.cluster), options.cluster
    if job is None and options.stop:
        raise InputError("--stop: found no job, allowed: with the name of the job that is to stop")
    if job is None:
        launcher(cluster).logs(options.dry_run)
    elif options.dry_run:
        print(f"would {'stop' if options.stop else 'show'} {job} of {cluster or 'another checkout, if it has ended'}")
    elif options.job is None and JobResults.open(Path.cwd()).has_ended(job):
        _show_saved_log(job)
    elif cluster is None:
        raise InputError(f"{job}: has not ended, and was not sent from here: name its cluster, too")
    else:
        _follow(cluster, job, options.stop)


def _follow(cluster: str, job: str, stop: bool) -> None:
    dashboard = launcher(cluster).dashboard
    if stop:
        with job_client(dashboard) as client:
            job_info(client, job)
            client.stop_job(job)
    watch(cluster, dashboard, job)


def _show_saved_log(job: str) -> None:
    """The log in the bucket, and how the job ended."""
    results = JobResults.open(Path.cwd())
    result = results.result(job)
    sys.stdout.write(results.read(job, LOG).decode(errors="replace"))
    print(f"{job}: {result['state']} at {result['at']}", file=sys.stderr)
    if result["state"] != "succeeded":
        raise InputError(f"{job}: {result['state']} with exit code {result['exit_code']}")
