"""The launcher of a cluster, chosen by its file: Ray's, KubeRay, or none (it runs already); SkyPilot has its own."""

import argparse
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import yaml

from llm4seg.utils.errors import InputError

RAY_PROVIDERS = ("aws", "local")
KUBERAY = "RayCluster"


class Launcher(Protocol):
    """What every kind of cluster can do; with `dry_run` it only prints what it would do."""

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

    def dashboard(self) -> AbstractContextManager[str]:
        """The http address of Ray's dashboard, through a tunnel that is open inside the block."""


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """The argument that names a cluster."""
    parser.add_argument(
        "cluster",
        help="a file of Ray's cluster launcher (infra/aws.yaml) or of KubeRay (infra/kuberay/), or the http address of "
        "the dashboard of a cluster that runs already; for `submit` also a task of SkyPilot (infra/sky/task.yaml)",
    )


def launcher(cluster: str, **options: str | bool | None) -> Launcher:
    """The launcher of this cluster. Raises InputError for a file that is none, naming the field.

    `options`: those that only Ray's cluster launcher knows; None and False are none.
    """
    given = {name: value for name, value in options.items() if value}
    if cluster.startswith(("http://", "https://")):
        _refuse(given)
        from infra.launchers.running import RunningCluster

        return RunningCluster(cluster)
    path, parts = Path(cluster), read(Path(cluster))
    if any(part.get("kind") == KUBERAY for part in parts):
        _refuse(given)
        from infra.launchers.kuberay import KubeRayCluster

        return KubeRayCluster(path, parts)
    _check_provider(path, parts[0])
    from infra.launchers.ray_up import RayUpCluster

    return RayUpCluster(path, parts[0], **given)  # type: ignore[arg-type]


def is_sky_task(cluster: str) -> bool:
    """Whether this is a file of SkyPilot. Raises InputError where there is none."""
    return not cluster.startswith(("http://", "https://")) and _is_sky(read(Path(cluster))[0])


def _is_sky(file: Mapping[str, Any]) -> bool:
    return "run" in file and "resources" in file


def _check_provider(path: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError unless a file is Ray's cluster launcher's, for one of the providers that we know."""
    if _is_sky(config):
        raise InputError(
            f"{path}: a task of SkyPilot: `python -m infra submit {path}` sends a job, `fetch` gets its results; all "
            "else is SkyPilot's: `sky status`, `sky jobs queue`, `sky jobs logs`, `sky jobs cancel`, `sky down`"
        )
    provider = config.get("provider")
    kind = provider.get("type") if isinstance(provider, dict) else None
    if kind not in RAY_PROVIDERS:
        others = "; other clouds, such as gcp: infra/sky/task.yaml, by SkyPilot"
        raise InputError(f"{path}: provider.type: found {kind!r}, allowed: {', '.join(RAY_PROVIDERS)}{others}")


def _refuse(options: Mapping[str, object]) -> None:
    if options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options)
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
