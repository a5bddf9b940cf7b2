"""Clusters of KubeRay, over kubectl: a RayCluster that ends when it is idle."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.launchers.kubectl import output, port_forward, run_on_objects
from infra.launchers.kuberay_file import LABEL, Part, at, read_kuberay
from infra.launchers.token import make_token, token_in_use
from infra.shell import call
from llm4seg.utils.errors import InputError

DASHBOARD = 8265
APPLY = ("apply", "--server-side", "--field-manager=llm4seg")  # server-side: no copy of the token in an annotation
BILLABLE = "rayclusters.ray.io,pods,jobs.batch,cronjobs.batch,persistentvolumeclaims"
TIMEOUT = 300.0  # seconds for pods to end once their cluster is deleted
START = 1200.0  # seconds for a head to be ready


class KubeRayCluster:
    """A RayCluster, with the objects beside it in its file; `kubectl` and its current context do the work."""

    def __init__(self, path: Path, parts: list[Part]) -> None:
        self.file = read_kuberay(path, parts)
        self.label = f"{LABEL}={self.file.name}"

    def up(self, dry_run: bool) -> None:
        """Apply the file with the laptop's Ray token as a Secret, and wait for the head."""
        if mistake := self.file.left_to_fill_in():
            if not dry_run:
                raise InputError(mistake)
            print(f"to do first: {mistake}")
        call(["kubectl", "config", "current-context"], dry_run)
        namespaces = [part for part in self.file.parts if part["kind"] == "Namespace"]
        run_on_objects(
            APPLY,
            [*namespaces, self._secret("" if dry_run else make_token().read_text(encoding="utf-8").strip())],
            dry_run,
        )
        call(["kubectl", *APPLY, "-f", str(self.file.path)], dry_run)
        ready = ("--for=condition=HeadPodReady", f"--timeout={START:g}s")
        self._kubectl("wait", self.file.resource, *ready, dry_run=dry_run)
        print(f"next: python -m infra submit {self.file.path} -- dvc exp run -S model.llm.layer=7")

    def down(self, dry_run: bool) -> None:
        """Delete what comes and goes with the cluster, and wait until none of it is left."""
        mine = [*self.file.own, self._secret("")]
        mine.sort(key=lambda part: part["kind"] != "CronJob")  # the clock first: it would end the same cluster
        run_on_objects(("delete", "--ignore-not-found", "--wait=true", "--timeout=10m"), mine, dry_run)
        find = ("get", BILLABLE, "-l", self.label, "-o", "name")
        if dry_run:
            self._kubectl(*find, dry_run=True)
            return
        until = time.monotonic() + TIMEOUT
        while left := output("-n", self.file.namespace, *find).split():
            if time.monotonic() > until:
                raise InputError(f"{self.file.path}: still there after {TIMEOUT:g} s: {', '.join(left)}")
            time.sleep(1)
        print(f"nothing of {self.file.name} is left; its nodes end when the node autoscaler finds them empty")

    def status(self, dry_run: bool) -> None:
        """A table of its pods, then Ray's own view."""
        if dry_run:
            self._kubectl("get", "pods", "-l", self.label, dry_run=True)
            return
        pods = json.loads(output("-n", self.file.namespace, "get", "pods", "-l", self.label, "-o", "json"))["items"]
        table = Table(title=f"{self.file.resource}: {self._state() or 'not there'}")
        for column in ("pod", "group", "phase", "GPUs", "node", "since"):
            table.add_column(column)
        for pod in pods:
            table.add_row(*_row(pod))
        Console().print(table)
        if any(_is_head(pod) and at(pod, "status.phase") == "Running" for pod in pods):
            self._kubectl("exec", self._head(), "-c", "ray-head", "--", "ray", "status")

    def attach(self, dry_run: bool) -> None:
        self._kubectl("exec", "-it", self._head(dry_run), "-c", "ray-head", "--", "bash", dry_run=dry_run)

    def logs(self, dry_run: bool) -> None:
        self._kubectl("logs", "-f", "--tail=100", self._head(dry_run), "-c", "autoscaler", dry_run=dry_run)

    @contextmanager
    def dashboard(self) -> Iterator[str]:
        """The http address of Ray's dashboard, through `kubectl port-forward`."""
        with token_in_use(), port_forward(self.file.namespace, self._head(), DASHBOARD) as address:
            yield address

    def _secret(self, token: str) -> Part:
        metadata = {"name": self.file.secret, "namespace": self.file.namespace, "labels": {LABEL: self.file.name}}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"auth_token": token}}

    def _state(self) -> str:
        """As KubeRay says it; nothing where there is no such object."""
        found = output("-n", self.file.namespace, "get", self.file.resource, "--ignore-not-found", "-o", "json")
        if not found.strip():
            return ""
        return str(at(json.loads(found), "status.state") or "starting")

    def _head(self, dry_run: bool = False) -> str:
        """The head's pod, as kubectl names it."""
        if dry_run:
            return "pod/HEAD"
        where = f"{self.label},ray.io/node-type=head"
        found = output("-n", self.file.namespace, "get", "pods", "-l", where, "-o", "name").split()
        if not found:
            raise InputError(f"{self.file.path}: no head runs; start it with `python -m infra up {self.file.path}`")
        return found[0]

    def _kubectl(self, *words: str, dry_run: bool = False) -> None:
        call(["kubectl", "-n", self.file.namespace, *words], dry_run)


def _is_head(pod: Part) -> bool:
    return bool(at(pod, "metadata.labels.ray.io/node-type") == "head")


def _row(pod: Part) -> tuple[str, ...]:
    """A pod of the table."""
    containers: list[dict[str, Any]] = at(pod, "spec.containers") or []
    gpus = sum(int((one.get("resources") or {}).get("limits", {}).get("nvidia.com/gpu", 0)) for one in containers)
    group = at(pod, "metadata.labels.ray.io/group") or at(pod, "metadata.labels.ray.io/node-type") or ""
    since = at(pod, "status.startTime") or ""
    return (
        pod["metadata"]["name"],
        group,
        at(pod, "status.phase") or "",
        str(gpus),
        at(pod, "spec.nodeName") or "",
        since,
    )
