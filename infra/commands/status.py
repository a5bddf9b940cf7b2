"""Print the nodes of a cluster, and what it runs."""

import argparse

from infra.launchers import add_cluster, launcher

EXAMPLE = "status infra/aws.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)


def run(options: argparse.Namespace) -> None:
    launcher(options.cluster).status(options.dry_run)
