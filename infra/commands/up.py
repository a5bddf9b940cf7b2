"""Start a cluster, or bring a running one up to its file."""

import argparse

from infra.launchers import add_cluster, launcher

EXAMPLE = "up infra/aws.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)


def run(options: argparse.Namespace) -> None:
    launcher(options.cluster).up(options.dry_run)
