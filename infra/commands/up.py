"""Start a cluster, or bring a running one up to its file."""

import argparse

from infra.launchers import add_cluster, launcher

EXAMPLE = "up infra/aws.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)
    parser.add_argument(
        "--ssh-from",
        metavar="ADDRESS",
        help="who may connect by SSH, such as 203.0.113.7/32; default: this machine, as "
        "https://checkip.amazonaws.com sees it",
    )


def run(options: argparse.Namespace) -> None:
    launcher(options.cluster, ssh_from=options.ssh_from).up(options.dry_run)
