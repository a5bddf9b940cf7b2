"""Validation of Kubernetes objects as by an API server: KubeRay's own schemas, Kubernetes', and Kueue's by hand.

Unknown fields are refused, as by `kubectl apply`. Kueue publishes no schemas in a package: its kinds are
checked for the fields that they must have, no more.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.import_graph import ROOT

FIXTURES = Path(__file__).parent / "fixtures" / "kuberay"
KUBERNETES = "1.34"
KUEUE: dict[str, dict[str, Any]] = {
    "ResourceFlavor": {"properties": {"spec": {"nodeLabels": 0, "tolerations": 0, "nodeTaints": 0}}},
    "ClusterQueue": {"required": ["spec"], "properties": {"spec": {"namespaceSelector": 0, "resourceGroups": 0}}},
    "LocalQueue": {"required": ["spec"], "properties": {"spec": {"clusterQueue": 0}}},
}


def refused(thing: dict[str, Any]) -> str | None:
    """The reason why an API server would refuse an object; None if it would not."""
    group, _, version = thing["apiVersion"].rpartition("/")
    if group == "ray.io":
        schema = ray_schema(thing["kind"], version)
    elif group == "kueue.x-k8s.io":
        schema = kueue_schema(thing["kind"])
    else:
        return _kubernetes(thing)
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(thing))
    return (
        None if error is None else f"{thing['kind']} {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
    )


def _kubernetes(thing: dict[str, Any]) -> str | None:
    try:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return _message(thing, error)
    return None


def _message(thing: dict[str, Any], error: jsonschema.ValidationError) -> str:
    return f"{thing['kind']} {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


@cache
def ray_schema(kind: str, version: str) -> dict[str, Any]:
    """The schema of one of KubeRay's kinds."""
    file = FIXTURES / f"ray.io_{kind.lower()}s.yaml"
    definition = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (found,) = (one for one in definition["spec"]["versions"] if one["name"] == version)
    schema = strict(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return schema


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI schema as a closed JSON schema, which refuses unknown fields."""
    made = {name: value for name, value in schema.items() if not name.startswith("x-kubernetes")}
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if properties := schema.get("properties"):
        made["properties"] = {name: strict(one) for name, one in properties.items()}
        made.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    for below in ("items", "additionalProperties"):
        if isinstance(schema.get(below), dict):
            made[below] = strict(schema[below])
    return made


def kueue_schema(kind: str) -> dict[str, Any]:
    """The fields of one of Kueue's kinds that we use."""
    known = KUEUE[kind]
    spec = {
        "type": "object",
        "properties": dict.fromkeys(known["properties"]["spec"], True),
        "additionalProperties": False,
    }
    properties = {"apiVersion": {"const": "kueue.x-k8s.io/v1beta2"}, "kind": True, "metadata": {"required": ["name"]}}
    required = ["metadata", *known.get("required", [])]
    return {"properties": properties | {"spec": spec}, "required": required, "additionalProperties": False}


def queued_job() -> str:
    """infra/kuberay/job.yaml with the lines that are marked "Kueue:" swapped in, as its reader would."""
    lines = list[str]()
    for line in (ROOT / "infra" / "kuberay" / "job.yaml").read_text(encoding="utf-8").splitlines():
        now, marked, then = line.partition("# Kueue: ")
        if not marked or now.startswith("#"):
            lines.append(line)
        elif then != "without this line":
            key = now.partition(":")[0] + ": " if now.strip() else now
            lines.append(key + then)
    return "\n".join(lines)
