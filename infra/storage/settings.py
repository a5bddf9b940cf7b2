"""What a bucket is to be like: each setting is read, and written with what it lacked; the rest of it stays.

Not here is what S3 does by itself for every new bucket: it encrypts, and objects are the bucket owner's without ACLs.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infra.storage.bucket import Bucket, NotImplementedThere
from infra.storage.s3_location import S3Location
from llm4seg.utils.errors import InputError

OWN_TAG = ("project", "llm4seg")  # a bucket with it is recognized as this project's
SWITCHES = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
TLS_ONLY = "llm4segTlsOnly"
UPLOAD_DAYS = 7  # until an incomplete upload is given up
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")  # `dvc pull` cannot read from there


@dataclass(frozen=True)
class Setting:
    """One property of a bucket, by boto3's operations `get_NAME` and `put_NAME`."""

    name: str
    right: str  # what it is like then
    operation: str
    read: Callable[[dict[str, Any]], Any]  # the server's answer
    mended: Callable[[Any], Any]  # what was read, with what it lacked; equal to it where nothing is wrong
    arguments: Callable[[Any], dict[str, Any]]  # of the operation that writes it


@dataclass(frozen=True)
class Row:
    """A line of the table: what was found and what was done."""

    check: str
    found: str
    done: str = ""
    missing: bool = False


def settle(setting: Setting, bucket: Bucket) -> Row:
    """Bring one setting in order."""
    try:
        found = setting.read(bucket.call(f"get_{setting.operation}"))
        mended = setting.mended(found)
        if mended == found:
            return Row(setting.name, setting.right)
        bucket.call(f"put_{setting.operation}", **setting.arguments(mended))
    except NotImplementedThere:
        return Row(setting.name, "the server has no such setting", "missing there", missing=True)
    return Row(setting.name, "set otherwise" if found else "not set", f"now: {setting.right}")


def tags() -> Setting:
    """By one of them the bucket is recognized next time; others stay."""
    return Setting(
        "tags",
        "=".join(OWN_TAG),
        "bucket_tagging",
        lambda answer: {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", [])},
        lambda found: found | dict([OWN_TAG]),
        lambda found: {"Tagging": {"TagSet": [{"Key": key, "Value": value} for key, value in found.items()]}},
    )


def public_access() -> Setting:
    """Nobody without credentials, whatever a policy or an object's ACL says."""
    return Setting(
        "public access",
        "blocked",
        "public_access_block",
        lambda answer: answer.get("PublicAccessBlockConfiguration", {}),
        lambda found: dict.fromkeys(SWITCHES, True),
        lambda found: {"PublicAccessBlockConfiguration": found},
    )


def versioning() -> Setting:
    """What is overwritten or deleted can be had back."""
    return Setting(
        "versioning",
        "on",
        "bucket_versioning",
        lambda answer: answer.get("Status", ""),
        lambda found: "Enabled",
        lambda found: {"VersioningConfiguration": {"Status": found}},
    )


def tls_only(arn: str) -> Setting:
    """A statement of the bucket's policy that refuses plain http; other statements stay."""
    ours = {
        "Sid": TLS_ONLY,
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }

    def read(answer: dict[str, Any]) -> dict[str, Any]:
        policy = {"Version": "2012-10-17"} | json.loads(answer.get("Policy", "{}"))
        statements = policy.get("Statement", [])
        return policy | {"Statement": statements if isinstance(statements, list) else [statements]}

    def mended(found: dict[str, Any]) -> dict[str, Any]:
        if any(_words(one) == _words(ours) for one in found["Statement"]):
            return found
        return found | {"Statement": [*(one for one in found["Statement"] if one.get("Sid") != TLS_ONLY), ours]}

    return Setting("transport", "TLS only", "bucket_policy", read, mended, lambda found: {"Policy": json.dumps(found)})


def _words(part: Any) -> list[str]:
    """The names and values of a statement: servers may write "*" as {"AWS": ["*"]}, and one entry as a list."""
    if isinstance(part, dict):
        return sorted(word for key, value in part.items() for word in (key, *_words(value)) if word != "AWS")
    if isinstance(part, list):
        return sorted(word for value in part for word in _words(value))
    return [str(part).lower() if isinstance(part, bool) else str(part)]


def lifecycle(location: S3Location, run_days: int, version_days: int) -> Setting:
    """What the bucket deletes by itself. Ids have the prefix, so that projects can share a bucket; other rules stay."""
    uploads = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS}}
    runs = {
        "Expiration": {"Days": run_days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": version_days},
    }
    ours = [
        _rule(location, "incomplete uploads", f"{location.prefix}/") | uploads,
        _rule(location, "old runs", location.key("runs")) | runs,
    ]

    def mended(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        known = [_effect(rule) for rule in found]
        lacking = [rule for rule in ours if _effect(rule) not in known]
        return [*(rule for rule in found if rule.get("ID") not in [one["ID"] for one in lacking]), *lacking]

    return Setting(
        "old runs",
        f"{location.key('runs')} deleted after {run_days} days, old versions after {version_days}",
        "bucket_lifecycle_configuration",
        lambda answer: answer.get("Rules", []),
        mended,
        lambda found: {"LifecycleConfiguration": {"Rules": found}},
    )


def _rule(location: S3Location, what: str, prefix: str) -> dict[str, Any]:
    return {"ID": f"llm4seg {location.prefix}: {what}", "Status": "Enabled", "Filter": {"Prefix": prefix}}


def _effect(rule: dict[str, Any]) -> tuple[Any, ...]:
    """A rule's id and what it does, however the server writes it."""
    actions = ("Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")
    days = ([value for key, value in rule.get(action, {}).items() if "Days" in key] for action in actions)
    return rule.get("ID"), rule["Status"], _prefix(rule), *map(tuple, days)


def _prefix(rule: dict[str, Any]) -> str:
    filtered = rule.get("Filter", {})
    return str(filtered.get("Prefix") or filtered.get("And", {}).get("Prefix") or rule.get("Prefix") or "")


def check_nothing_deletes_data(location: S3Location, bucket: Bucket) -> None:
    """Raises InputError naming a rule, whoever set it, that would delete or archive what DVC keeps."""
    try:
        rules = bucket.call("get_bucket_lifecycle_configuration").get("Rules", [])
    except NotImplementedThere:
        return
    data = location.key("dvc")
    for rule in rules:
        prefix = _prefix(rule)
        if (data.startswith(prefix) or prefix.startswith(data)) and _takes_away(rule):
            raise InputError(
                f"s3://{bucket.name}: its lifecycle rule {rule.get('ID', '')!r} deletes or archives what lies under "
                f"{prefix or 'every prefix'}, and so {data}: change the rule, or choose another prefix"
            )


def _takes_away(rule: dict[str, Any]) -> bool:
    """Whether it concerns current objects without tags, which DVC's are."""
    filtered = rule.get("Filter", {})
    tagged = filtered.get("Tag") or filtered.get("And", {}).get("Tags")
    expires = {"Days", "Date"} & set(rule.get("Expiration", {}))
    archives = [one for one in rule.get("Transitions", []) if one.get("StorageClass") in ARCHIVES]
    return rule["Status"] == "Enabled" and not tagged and bool(expires or archives)
