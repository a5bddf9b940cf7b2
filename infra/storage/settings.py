"""What a bucket is to be like, setting by setting: read, checked, mended by adding to it, and read again."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

import tenacity

from infra.storage.bucket import Bucket, NotImplementedThere

OWN_TAG = ("project", "llm4seg")  # a bucket with it is recognized as this project's
TAGS = dict([OWN_TAG]) | {"managed-by": "infra-storage"}
TIMEOUT = 10.0  # seconds: AWS may answer with what was set before for a while


class Setting(Protocol):
    """One property of a bucket. What `write` leaves is never weaker than what was found."""

    @property
    def name(self) -> str: ...

    @property
    def right(self) -> str:
        """What it is like when nothing is wrong."""

    def read(self, bucket: Bucket) -> Any:
        """What is set. Raises NotImplementedThere."""

    def wrong(self, found: Any) -> str:
        """What is wrong with it; empty if nothing is. None is a bucket that is still to be created."""

    def write(self, bucket: Bucket, found: Any) -> None:
        """Mend what was found, and keep the rest of it."""


@dataclass(frozen=True)
class Row:
    """A line of the table: what was found and what was done."""

    check: str
    found: str
    done: str = ""
    missing: bool = False


def settle(setting: Setting, bucket: Bucket | None, dry_run: bool) -> Row:
    """Bring one setting in order; without a bucket, or in a dry run, only say how."""
    try:
        found = setting.read(bucket) if bucket else None
        wrong = setting.wrong(found)
        if not wrong:
            return Row(setting.name, setting.right)
        if dry_run or bucket is None:
            return Row(setting.name, wrong, f"would be: {setting.right}")
        setting.write(bucket, found)
        if still := _still_wrong(setting, bucket):
            return Row(setting.name, f"{still}, although the server took it", "missing there", missing=True)
        return Row(setting.name, wrong, f"now: {setting.right}")
    except NotImplementedThere:
        return Row(setting.name, "the server has no such setting", "missing there", missing=True)


def _still_wrong(setting: Setting, bucket: Bucket) -> str:
    again = tenacity.Retrying(
        retry=tenacity.retry_if_result(bool),
        wait=tenacity.wait_fixed(0.5),
        stop=tenacity.stop_after_delay(TIMEOUT),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else "",
    )
    return str(again(lambda: setting.wrong(setting.read(bucket))))


class Tags:
    """Who a bucket belongs to; other tags stay."""

    name, right = "tags", ", ".join(f"{key}={value}" for key, value in TAGS.items())

    def read(self, bucket: Bucket) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in bucket.call("get_bucket_tagging").get("TagSet", [])}

    def wrong(self, found: dict[str, str] | None) -> str:
        lacking = [key for key, value in TAGS.items() if (found or {}).get(key) != value]
        return f"no {', '.join(lacking)}" if lacking else ""

    def write(self, bucket: Bucket, found: dict[str, str]) -> None:
        tags = [{"Key": key, "Value": value} for key, value in (found | TAGS).items()]
        bucket.call("put_bucket_tagging", Tagging={"TagSet": tags})


class PublicAccess:
    """Nobody without credentials, whatever a policy or an object's ACL says."""

    name, right = "public access", "blocked"
    switches = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")

    def read(self, bucket: Bucket) -> dict[str, bool]:
        return dict(bucket.call("get_public_access_block").get("PublicAccessBlockConfiguration", {}))

    def wrong(self, found: dict[str, bool] | None) -> str:
        off = [name for name in self.switches if not (found or {}).get(name)]
        return "not blocked" if len(off) == len(self.switches) else f"off: {', '.join(off)}" if off else ""

    def write(self, bucket: Bucket, found: dict[str, bool]) -> None:
        bucket.call("put_public_access_block", PublicAccessBlockConfiguration=dict.fromkeys(self.switches, True))


class Ownership:
    """Every object is the bucket owner's, and ACLs mean nothing."""

    name, right = "ownership", "the bucket owner's, no ACLs"

    def read(self, bucket: Bucket) -> str:
        rules = bucket.call("get_bucket_ownership_controls").get("OwnershipControls", {}).get("Rules", [])
        return "".join(rule["ObjectOwnership"] for rule in rules)

    def wrong(self, found: str | None) -> str:
        return "" if found == "BucketOwnerEnforced" else found or "not set"

    def write(self, bucket: Bucket, found: str) -> None:
        rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        bucket.call("put_bucket_ownership_controls", OwnershipControls=rules)


class TlsOnly:
    """A statement of the bucket's policy that refuses plain http; other statements stay."""

    name, right, sid = "transport", "TLS only", "llm4segTlsOnly"

    def read(self, bucket: Bucket) -> dict[str, Any]:
        policy = json.loads(bucket.call("get_bucket_policy").get("Policy", "{}"))
        statements = policy.get("Statement", [])
        return policy | {"Statement": statements if isinstance(statements, list) else [statements]}

    def wrong(self, found: dict[str, Any] | None) -> str:
        ours = [one for one in (found or {}).get("Statement", []) if one.get("Sid") == self.sid]
        if not ours:
            return "plain http allowed"
        return "" if all(map(self._refuses_http, ours)) else f"the policy's {self.sid} was changed"

    def _refuses_http(self, statement: dict[str, Any]) -> bool:
        """By what it says, not how: servers may write "*" as {"AWS": "*"}, and one entry as a list."""
        resources = sorted(_entries(statement.get("Resource")))
        return (
            statement.get("Effect") == "Deny"
            and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
            and _entries(statement.get("Action")) == ["s3:*"]
            and len(resources) == 2
            and resources[1] == f"{resources[0]}/*"
            and list(statement.get("Condition", {})) == ["Bool"]
            and {key: _entries(value) for key, value in statement["Condition"]["Bool"].items()}
            == {"aws:SecureTransport": ["false"]}
        )

    def write(self, bucket: Bucket, found: dict[str, Any]) -> None:
        ours = {
            "Sid": self.sid,
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [bucket.arn, f"{bucket.arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        others = [one for one in found["Statement"] if one.get("Sid") != self.sid]
        policy = {"Version": "2012-10-17"} | found | {"Statement": [*others, ours]}
        bucket.call("put_bucket_policy", Policy=json.dumps(policy))


def _entries(value: Any) -> list[str]:
    return [
        str(one).lower() if isinstance(one, bool) else str(one)
        for one in (value if isinstance(value, list) else [value])
    ]


class Encryption:
    """Of new objects on the server's disks; with a key of KMS where one is named, and never back from KMS."""

    name = "encryption"

    def __init__(self, kms_key: str | None) -> None:
        self._key = kms_key
        self.right = f"KMS, {kms_key}" if kms_key else "on"

    def read(self, bucket: Bucket) -> dict[str, Any]:
        found = bucket.call("get_bucket_encryption").get("ServerSideEncryptionConfiguration", {})
        return next(iter(found.get("Rules", [])), {})

    def wrong(self, found: dict[str, Any] | None) -> str:
        by_default = (found or {}).get("ApplyServerSideEncryptionByDefault", {})
        if not by_default.get("SSEAlgorithm"):
            return "off"
        if self._key not in (None, by_default.get("KMSMasterKeyID")):
            return f"{by_default['SSEAlgorithm']}, with {by_default.get('KMSMasterKeyID', 'no key of yours')}"
        return ""

    def write(self, bucket: Bucket, found: dict[str, Any]) -> None:
        by_default = {"SSEAlgorithm": "AES256"}
        if self._key:
            by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": self._key}
        rule = found | {"ApplyServerSideEncryptionByDefault": by_default, "BucketKeyEnabled": bool(self._key)}
        bucket.call("put_bucket_encryption", ServerSideEncryptionConfiguration={"Rules": [rule]})


class Versioning:
    """What is overwritten or deleted can be had back."""

    name, right = "versioning", "on"

    def read(self, bucket: Bucket) -> str:
        return str(bucket.call("get_bucket_versioning").get("Status", ""))

    def wrong(self, found: str | None) -> str:
        return "" if found == "Enabled" else (found or "off").lower()

    def write(self, bucket: Bucket, found: str) -> None:
        bucket.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
