"""End a cluster, and confirm that nothing billable is left; safe to repeat."""

import argparse

from infra.launchers import add_cluster, launcher

EXAMPLE = "down infra/aws.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)
    parser.add_argument(
        "--forget", action="store_true", help="delete what costs nothing, too: roles, accounts, networks"
    )


def run(options: argparse.Namespace) -> None:
    launcher(options.cluster, forget=options.forget).down(options.dry_run)
