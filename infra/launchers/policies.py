"""What a cluster's nodes may do on AWS: the documents of infra/policies, filled in for one cluster."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "policies"

Values = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Account:
    """Whose resources they are: in an ARN, what stands before the resource."""

    partition: str
    region: str
    number: str

    def arn(self, service: str, resource: str) -> str:
        region = "" if service == "iam" else self.region
        return f"arn:{self.partition}:{service}:{region}:{self.number}:{resource}"


def policy(name: str, values: Values) -> dict[str, Any]:
    """A document, filled in. A value that is a list takes the place of the one item of a list that names it."""
    document: dict[str, Any] = _fill(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")), values)
    return {**document, "Statement": [part for part in document["Statement"] if part.get("Resource") != []]}


def _fill(part: Any, values: Values) -> Any:
    if isinstance(part, dict):
        return {key: _fill(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [filled for item in part for filled in _items(item, values)]
    return Template(part).substitute(values) if isinstance(part, str) else part


def _items(item: Any, values: Values) -> list[Any]:
    listed = values.get(item[2:-1]) if isinstance(item, str) and item.startswith("${") else None
    return [_fill(item, values)] if listed is None or isinstance(listed, str) else list(listed)


def storage_policy(account: Account, bucket: str, prefix: str, key: str | None = None) -> dict[str, Any]:
    """Read and write one prefix of one bucket. Arrow also writes empty objects that mark the folders above it, and asks
    whether the bucket is there, which S3 takes for listing it: names of other keys can be seen, not their contents.

    `key`: the ARN of the key of KMS with which the bucket is encrypted, if it is.
    """
    parts = prefix.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    folders = [f"arn:{account.partition}:s3:::{bucket}/{folder}/" for folder in above]
    values = {"partition": account.partition, "bucket": bucket, "prefix": prefix, "folders_above": folders}
    keys = {"keys": [key] if key else [], "key_region": key.split(":")[3] if key else ""}
    return policy("storage", values | keys)


def scaling_policy(
    account: Account, cluster: str, instance_types: list[str], groups: list[str], worker_role: str, profile: str
) -> dict[str, Any]:
    """Start and end workers: of these instance types, with the cluster's tag, in its groups, with the workers' role."""
    values = {
        "partition": account.partition,
        "region": account.region,
        "account": account.number,
        "cluster": cluster,
        "instance_types": instance_types,
        "security_groups": [account.arn("ec2", f"security-group/{group}") for group in groups],
        "worker_role": worker_role,
        "worker_profile": profile,
    }
    return policy("scaling", values)
