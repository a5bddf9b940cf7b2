"""Who starts and ends a cluster, told from its file: Ray's launcher, Kubernetes, or nobody (it runs already)."""

import argparse
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import yaml

from llm4seg.utils.errors import InputError

RAY_PROVIDERS = ("aws", "gcp", "local")
KUBERAY_KINDS = ("RayCluster", "RayJob")


class Launcher(Protocol):
    """What every kind of cluster can do; with `dry_run` it only says what it would do."""

    def up(self, dry_run: bool) -> None:
        """Start it, or bring it up to its file."""

    def down(self, dry_run: bool) -> None:
        """End it; safe to repeat. Raises InputError if something billable is left."""

    def status(self, dry_run: bool) -> None:
        """Print its nodes and what they do."""

    def attach(self, dry_run: bool) -> None:
        """A shell on the head node."""

    def logs(self, dry_run: bool) -> None:
        """Follow the log of its autoscaler."""

    def submitted(self, job: str) -> None:
        """Take note of a job that was sent to it."""

    def dashboard(self) -> AbstractContextManager[str]:
        """Lend the http address of Ray's dashboard, through a tunnel that is there as long as the block."""


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """The argument that names a cluster."""
    parser.add_argument(
        "cluster",
        help="a file of Ray's cluster launcher (infra/aws.yaml) or of KubeRay (infra/kuberay/), or the http address of "
        "the dashboard of a cluster that runs already",
    )


def launcher(cluster: str, **wishes: str | bool | None) -> Launcher:
    """Who launches this cluster. Raises InputError for a file that is none, naming the field.

    `wishes`: options that only Ray's cluster launcher knows; None and False are none.
    """
    asked = {name: wish for name, wish in wishes.items() if wish}
    if cluster.startswith(("http://", "https://")):
        _refuse(asked)
        from infra.launchers.running import RunningCluster

        return RunningCluster(cluster)
    path, parts = Path(cluster), read(Path(cluster))
    if any(part.get("kind") in KUBERAY_KINDS for part in parts):
        _refuse(asked)
        from infra.launchers.kuberay import KubeRayCluster

        return KubeRayCluster(path, parts)
    provider = parts[0].get("provider")
    kind = provider.get("type") if isinstance(provider, dict) else None
    if kind not in RAY_PROVIDERS:
        raise InputError(f"{path}: provider.type: found {kind!r}, allowed: {', '.join(RAY_PROVIDERS)}")
    from infra.launchers.ray_up import RayUpCluster

    return RayUpCluster(path, parts[0], **asked)  # type: ignore[arg-type]


def _refuse(asked: Mapping[str, object]) -> None:
    if asked:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise InputError(f"{names}: allowed for files of Ray's cluster launcher only")


def read(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file. Raises InputError."""
    try:
        parts = [part for part in yaml.safe_load_all(path.read_text(encoding="utf-8")) if part is not None]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise InputError(f"{path}: found no mapping, allowed: a cluster's file")
    return parts
