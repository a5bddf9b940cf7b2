"""Run a command on a cluster, at the commit that is checked out here.

The commit is sent as a Ray Job, which pulls the data that the command needs from the DVC remote, runs it, and pushes
the outputs of finished stages. The log is shown here; closing this laptop stops nothing (`logs` goes on, `fetch` gets
the results).

Before anything is sent, the stages are printed that `dvc repro` or `dvc exp run` will find stale there. Where none is,
the job would do nothing, and is sent with --force alone.

Parameters are those of the commit, except where things happen: cluster.address is auto, cluster.data is pull, and
cluster.storage, if null, is the folder `runs` beside the DVC remote. --set changes any parameter of `cluster`.
"""

import argparse
import shlex
import sys
from pathlib import Path

from infra.jobs.client import job_client, save_cluster, submit_job, watch
from infra.jobs.job_spec import JobSpec
from infra.jobs.stale_stages import stale_stages
from infra.jobs.submit import Submission, parse_settings
from infra.launchers import add_cluster, launcher
from infra.planning.fleet import has_gpu_nodes
from infra.planning.prices import read_prices
from infra.shell import call
from llm4seg.utils.errors import InputError

EXAMPLE = "submit infra/aws.yaml --set cluster.workers=4 -- dvc exp run --name layer-7 -S model.llm.layer=7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="after --: dvc exp run -S a.b=1, dvc repro, ...")
    parser.add_argument("--set", action="append", default=[], metavar="cluster.NAME=VALUE", help="may be given again")
    parser.add_argument(
        "--include-changes", action="store_true", help="send changes of tracked files along, as a commit on no branch"
    )
    parser.add_argument("--force", action="store_true", help="send it although no stage is stale; look for none")
    parser.add_argument("--detach", action="store_true", help="do not follow the log")


def run(options: argparse.Namespace) -> None:
    submission = Submission.open(Path.cwd(), options.include_changes)
    gpu_nodes = has_gpu_nodes(options.cluster, read_prices())
    spec = submission.job_spec(options.words, parse_settings(options.set), gpu_nodes)
    submission.describe(spec)
    with submission.working_dir(spec) as folder:
        if spec.is_repro and not options.force:
            _show_stale_stages(folder, spec)
        call([sys.executable, "-m", "dvc", "push"], options.dry_run)
        if options.dry_run:
            return
        _send(submission, spec, folder, options.cluster)
    if not options.detach:
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


def _send(submission: Submission, spec: JobSpec, folder: Path, cluster: str) -> None:
    """The job's name is printed and saved first: from the first byte on it may run, whatever happens here."""
    launched = launcher(cluster)
    with job_client(launched.dashboard) as client:
        print(f"job {spec.job}", file=sys.stderr)
        submission.keep_commit(spec)
        save_cluster(submission.folder, spec.job, cluster)
        submit_job(client, spec, folder)
    print(f"sent as {spec.job}", file=sys.stderr)
    launched.on_submitted(spec.job)
