"""Validation of Kubernetes objects as by an API server: KubeRay's own schemas, and Kubernetes'.

Unknown fields are refused, as by `kubectl apply`.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

FIXTURES = Path(__file__).parent / "fixtures" / "kuberay"
KUBERNETES = "1.34"


def refused(thing: dict[str, Any]) -> str | None:
    """The reason why an API server would refuse an object; None if it would not."""
    group, _, version = thing["apiVersion"].rpartition("/")
    if group == "ray.io":
        schema = ray_schema(thing["kind"], version)
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
