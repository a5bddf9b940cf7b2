"""Open a shell on a cluster's head node."""

import argparse

from infra.launchers import add_cluster, launcher

EXAMPLE = "attach infra/aws.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster(parser)


def run(options: argparse.Namespace) -> None:
    launcher(options.cluster).attach(options.dry_run)
