"""Run a command on a cluster, at the commit that is checked out here.

The commit is sent as a Ray Job, which pulls the data that the command needs from the DVC remote, runs it, and pushes
what finished stages left. The log is shown here; closing this laptop stops nothing (`logs` goes on, `fetch` brings the
results home).

Parameters are those of the commit, except where things happen: cluster.address is auto, cluster.data is pull, and
cluster.storage, if null, is the folder `runs` beside the DVC remote. --set changes any parameter of `cluster`.
"""

import argparse
import sys
from pathlib import Path

from infra.jobs.client import jobs_of, send
from infra.jobs.job_spec import Order
from infra.jobs.submit import Outbox, parse_settings
from infra.jobs.watch import remember, watch
from infra.launchers import add_cluster, launcher
from infra.planning.fleet import brings_gpus
from infra.planning.prices import read_prices
from infra.shell import call

EXAMPLE = "submit infra/aws.yaml --set cluster.workers=4 -- dvc repro"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="after --: dvc repro, dvc exp run -S a.b=1, ...")
    parser.add_argument("--set", action="append", default=[], metavar="cluster.NAME=VALUE", help="may be given again")
    parser.add_argument(
        "--include-changes", action="store_true", help="send changes of tracked files along, as a commit on no branch"
    )
    parser.add_argument("--detach", action="store_true", help="do not follow the log")


def run(options: argparse.Namespace) -> None:
    outbox = Outbox.open(Path.cwd(), options.include_changes)
    gpus_come = brings_gpus(options.cluster, read_prices())
    order = outbox.order(options.words, parse_settings(options.set), gpus_come)
    outbox.describe(order)
    push = [sys.executable, "-m", "dvc", "push"]
    if options.dry_run:
        call(push, dry_run=True)
        return
    with outbox.packed(order) as folder:
        call(push)
        _send(outbox, order, folder, options.cluster)
    if not options.detach:
        watch(options.cluster, order.job)


def _send(outbox: Outbox, order: Order, folder: Path, cluster: str) -> None:
    """The job's name is shown and remembered first: from the first byte on it may run, whatever happens here."""
    with jobs_of(cluster) as client:
        print(f"job {order.job}", file=sys.stderr)
        outbox.keep(order)
        remember(outbox.folder, order.job, cluster)
        send(client, order, folder)
    print(f"sent as {order.job}", file=sys.stderr)
    launcher(cluster).submitted(order.job)
