"""A file for KubeRay, read and checked: what a cluster must say so that it is found again, safe, and ends by itself."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llm4seg.utils.errors import InputError

LABEL = "app.kubernetes.io/instance"
STANDARD = "pod-security.kubernetes.io/enforce"  # Kubernetes itself refuses pods that ask for more than it allows
TO_FILL_IN = re.compile(r"\b(REGISTRY|ACCOUNT|PROJECT)\b")
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY", re.IGNORECASE)
Part = dict[str, Any]


@dataclass(frozen=True)
class KubeRayFile:
    """The objects of a file, and the fields of its RayCluster."""

    path: Path
    parts: tuple[Part, ...]
    ray: Part  # the RayCluster

    @property
    def name(self) -> str:
        return str(self.ray["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.ray["metadata"]["namespace"])

    @property
    def resource(self) -> str:
        """As kubectl names it."""
        return f"{self.ray['kind'].lower()}/{self.name}"

    @property
    def cluster(self) -> Part:
        """The spec of its Ray cluster."""
        found: Part = self.ray.get("spec") or {}
        return found

    @property
    def secret(self) -> str:
        """The Secret that holds Ray's token."""
        return str(self.cluster["authOptions"]["secretName"])

    @property
    def own(self) -> list[Part]:
        """The objects that come and go with the cluster; others, as a namespace, serve more than it."""
        return [part for part in self.parts if at(part, f"metadata.labels.{LABEL}") == self.name]

    def left_to_fill_in(self) -> str | None:
        """The first field that still holds a word in capitals from the example."""
        for part in self.parts:
            for dotted, text in _texts(part):
                if word := TO_FILL_IN.search(text):
                    return f"{self.path}: {part['kind']} {dotted}: found {text!r}, allowed: your own {word[0]}"
        return None


def at(part: Any, dotted: str) -> Any:
    """The value of a dotted field; None where there is none. A label's name may hold dots."""
    head, _, rest = dotted.partition(".")
    if head in ("labels", "annotations", "nodeSelector"):
        head, rest, part = rest, "", (part or {}).get(head)
    found = part.get(head) if isinstance(part, dict) else None
    return at(found, rest) if rest else found


def _texts(value: Any, dotted: str = "") -> Iterator[tuple[str, str]]:
    """Every string below a value, with its dotted name."""
    if isinstance(value, str):
        yield dotted, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in items:
        yield from _texts(one, f"{dotted}.{name}" if dotted else str(name))


def read_kuberay(path: Path, parts: list[Part]) -> KubeRayFile:
    """Check a file's objects. Raises InputError naming the first wrong field, what was found, what is allowed."""
    found = [part for part in parts if part.get("kind") == "RayCluster"]
    if len(found) > 1:
        raise InputError(f"{path}: found {len(found)} objects of kind RayCluster, allowed: one")
    for part in parts:
        if not (isinstance(part.get("kind"), str) and isinstance(at(part, "metadata.name"), str)):
            raise InputError(f"{path}: metadata.name or kind: found none in one of its objects, allowed: a name")
    for mistake in _mistakes(found[0], parts):
        raise InputError(f"{path}: {mistake}")
    return KubeRayFile(path, tuple(parts), found[0])


def _mistakes(ray: Part, parts: list[Part]) -> Iterator[str]:
    kind, name = ray["kind"], ray["metadata"]["name"]
    yield from _unlike(ray, kind, {f"metadata.labels.{LABEL}": name})
    if not isinstance(at(ray, "metadata.namespace"), str):
        yield f"{kind} metadata.namespace: found none, allowed: a namespace of its own"
    if any(part["kind"] == "Secret" for part in parts):
        yield "Secret: found one, allowed: none in a file; `infra up` makes that of the token"
    for part in parts:
        if part["kind"] == "Namespace":
            yield from _unlike(part, "Namespace", {f"metadata.labels.{STANDARD}": "restricted"})
    yield from _cluster_mistakes(ray.get("spec") or {}, f"{kind} spec", name)
    yield from _lifetime_mistakes(name, parts)


def _cluster_mistakes(spec: Part, where: str, name: str) -> Iterator[str]:
    yield from _unlike(spec, where, {"rayVersion": version("ray"), "authOptions.mode": "token"})
    if not at(spec, "authOptions.secretName"):
        yield f"{where}.authOptions.secretName: found none, allowed: a name; `infra up` makes the Secret"
    if (service := at(spec, "headGroupSpec.serviceType")) not in (None, "ClusterIP"):
        yield f"{where}.headGroupSpec.serviceType: found {service}, allowed: ClusterIP"
    groups = spec.get("workerGroupSpecs") or []
    if not groups:
        yield f"{where}.workerGroupSpecs: found none, allowed: one or more"
    yield from _pod_mistakes(at(spec, "headGroupSpec.template"), f"{where}.headGroupSpec.template", name)
    for number, group in enumerate(groups):
        yield from _pod_mistakes(group.get("template"), f"{where}.workerGroupSpecs.{number}.template", name)


def _pod_mistakes(template: Any, where: str, name: str) -> Iterator[str]:
    """What Kubernetes would let pass, and we do not; what pods may do, the namespace's security standard says."""
    yield from _unlike(template, where, {f"metadata.labels.{LABEL}": name})
    containers = at(template, "spec.containers") or []
    if not containers:
        yield f"{where}.spec.containers: found none, allowed: one or more"
    for number, container in enumerate(containers):
        for place, variable in enumerate(container.get("env") or []):
            if variable.get("value") and SECRET_NAME.search(variable["name"]):
                found = f"found a secret ({variable['name']}), allowed: valueFrom.secretKeyRef"
                yield f"{where}.spec.containers.{number}.env.{place}.value: {found}"


def _lifetime_mistakes(name: str, parts: list[Part]) -> Iterator[str]:
    """KubeRay gives back idle workers and ends no RayCluster by itself, so a clock must be in the file."""
    pods = [at(part, "spec.jobTemplate.spec.template.spec") or {} for part in parts if part["kind"] == "CronJob"]
    commands = [container.get("command") or [] for pod in pods for container in pod.get("containers") or []]
    if not any(name in command and any("end_idle.py" in str(word) for word in command) for command in commands):
        yield f"CronJob: found none that ends {name} when it is idle, allowed: one as in infra/kuberay/cluster.yaml"


def _unlike(part: Any, where: str, wanted: dict[str, Any]) -> Iterator[str]:
    for dotted, value in wanted.items():
        if (found := at(part, dotted)) != value:
            yield f"{where}.{dotted}: found {_shown(found)}, allowed: {_shown(value)}".replace(" .", " ")


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
