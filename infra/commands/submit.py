"""Run a command on a cluster, at the commit that is checked out here.

The commit is sent as a Ray Job, which pulls the data that the command needs from the DVC remote, runs it, and pushes
the outputs of finished stages. The log is shown here; closing this laptop stops nothing (`logs` goes on, `fetch` gets
the results).

Before anything is sent, the stages are printed that `dvc repro` or `dvc exp run` will find stale there. Where none is,
the job would do nothing, and is sent with --force alone.

A file of SkyPilot (infra/sky/task.yaml) rents machines for this job alone: `sky jobs logs` shows its log, `sky jobs
cancel` ends it, and `fetch` is as for any job.

Parameters are those of the commit, except where things happen: cluster.address is auto, cluster.data is pull, and
cluster.storage, if null, is the folder `runs` beside the DVC remote. --set changes any parameter of `cluster`.
"""

import argparse
import shlex
import sys
from pathlib import Path

from infra.jobs import sky
from infra.jobs.client import job_client, save_cluster, submit_job, watch
from infra.jobs.job_spec import JobSpec
from infra.jobs.stale_stages import stale_stages
from infra.jobs.submit import Submission, parse_settings
from infra.launchers import add_cluster, is_sky_task, launcher
from infra.launchers.gpu_nodes import has_gpu_nodes
from infra.shell import call
from llm4seg.utils.errors import InputError

EXAMPLE = "submit infra/aws.yaml --set cluster.workers=4 -- dvc exp run --name layer-7 -S model.llm.layer=7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="after --: dvc exp run ... or dvc repro ...")
    parser.add_argument("--set", action="append", default=[], metavar="cluster.NAME=VALUE", help="may be given again")
    parser.add_argument("--force", action="store_true", help="send it although no stage is stale; look for none")
    parser.add_argument("--detach", action="store_true", help="do not follow the log")
    parser.add_argument(
        "--sky", metavar="WORDS", default=sky.HOW, help="call `sky` with these, for a file of SkyPilot: %(default)s"
    )


def run(options: argparse.Namespace) -> None:
    submission = Submission.open(Path.cwd())
    by_sky = is_sky_task(options.cluster)
    if not by_sky:
        launcher(options.cluster)  # its file is checked before anything is pushed
    gpu_nodes = not by_sky and has_gpu_nodes(options.cluster)
    spec = submission.job_spec(options.words, parse_settings(options.set), gpu_nodes)
    submission.describe(spec)
    with submission.working_dir(spec) as folder:
        if not options.force:
            _show_stale_stages(folder, spec)
        call([sys.executable, "-m", "dvc", "push"], options.dry_run)
        if by_sky:
            _launch(submission, spec, folder, options)
        elif not options.dry_run:
            _send(submission, spec, folder, options.cluster)
    if not (by_sky or options.dry_run or options.detach):
        watch(options.cluster, launcher(options.cluster).dashboard, spec.job)


def _show_stale_stages(folder: Path, spec: JobSpec) -> None:
    """Print them. Raises InputError where there is none: a job that a cluster is started for should do something."""
    stages = stale_stages(folder, spec)
    if not stages:
        raise InputError(
            f"`{shlex.join(spec.command)}`: found no stale stage, so the job would do nothing; allowed: a change, such "
            "as `dvc exp run -S NAME=VALUE`, `dvc repro --force`, or --force before the -- to send it all the same"
        )
    print(f"  stale: {', '.join(stages)}; stages after them run if their inputs change", file=sys.stderr)


def _launch(submission: Submission, spec: JobSpec, folder: Path, options: argparse.Namespace) -> None:
    """By SkyPilot, which shows prices, asks, and follows the log: the job's name is printed before."""
    print(f"job {spec.job}; its results, also while it runs: python -m infra fetch {spec.job}", file=sys.stderr)
    if not options.dry_run:
        save_cluster(submission.folder, spec.job, options.cluster)
    how = f"{options.sky} --detach-run" if options.detach else options.sky
    sky.launch(options.cluster, spec.job, folder, how, options.dry_run)


def _send(submission: Submission, spec: JobSpec, folder: Path, cluster: str) -> None:
    """The job's name is printed and saved first: from the first byte on it may run, whatever happens here."""
    with job_client(launcher(cluster).dashboard) as client:
        print(f"job {spec.job}", file=sys.stderr)
        save_cluster(submission.folder, spec.job, cluster)
        submit_job(client, spec, folder)
    print(f"sent as {spec.job}", file=sys.stderr)
