"""What a bucket deletes by itself, after how many days: never what DVC keeps there."""

from dataclasses import dataclass
from typing import Any

from infra.storage.bucket import Bucket, NotImplementedThere
from infra.storage.s3_location import S3Location
from llm4seg.utils.errors import InputError

ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")  # `dvc pull` cannot read from there


@dataclass(frozen=True)
class Lifecycle:
    """One rule of a bucket's lifecycle, found again by its id; other rules stay."""

    name: str
    right: str
    rule: dict[str, Any]

    def read(self, bucket: Bucket) -> dict[str, Any]:
        return bucket.call("get_bucket_lifecycle_configuration")

    def wrong(self, found: dict[str, Any] | None) -> str:
        same = [rule for rule in (found or {}).get("Rules", []) if rule.get("ID") == self.rule["ID"]]
        if not same:
            return "no rule"
        return "" if _normalized(same[0]) == _normalized(self.rule) else "another rule"

    def write(self, bucket: Bucket, found: dict[str, Any]) -> None:
        others = [rule for rule in found.get("Rules", []) if rule.get("ID") != self.rule["ID"]]
        kept = {name: value for name, value in found.items() if name == "TransitionDefaultMinimumObjectSize"}
        bucket.call(
            "put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": [*others, self.rule]}, **kept
        )


def lifecycle(location: S3Location, upload_days: int, run_days: int, version_days: int) -> list[Lifecycle]:
    """The rules of one project; ids name the prefix, so that projects can share a bucket."""
    uploads = {
        **_rule(location, "incomplete uploads", f"{location.prefix}/"),
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": upload_days},
    }
    runs = {
        **_rule(location, "old runs", location.key("runs")),
        "Expiration": {"Days": run_days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": version_days},
    }
    summary = f"{location.key('runs')} deleted after {run_days} days, old versions after {version_days}"
    return [
        Lifecycle("incomplete uploads", f"given up after {upload_days} days", uploads),
        Lifecycle("old runs", summary, runs),
    ]


def _rule(location: S3Location, what: str, prefix: str) -> dict[str, Any]:
    return {"ID": f"llm4seg {location.prefix}: {what}", "Status": "Enabled", "Filter": {"Prefix": prefix}}


def _normalized(rule: dict[str, Any]) -> tuple[Any, ...]:
    """What a rule does, however the server writes it."""
    return (
        rule["Status"],
        _prefix(rule),
        rule.get("Expiration", {}).get("Days"),
        rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays"),
        rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation"),
    )


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
