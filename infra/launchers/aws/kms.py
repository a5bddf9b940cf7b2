"""The key of KMS with which the project's bucket is encrypted: nodes must be allowed to use it."""

import sys

from botocore.exceptions import ClientError

from infra.launchers.aws.client import Aws
from infra.storage.server import code

NONE = ("ServerSideEncryptionConfigurationNotFoundError", "NoSuchBucket")  # the second: the bucket is another server's


def bucket_key(aws: Aws, bucket: str) -> str | None:
    """Its ARN; none where S3 encrypts with its own keys, or with AWS's key for it, which takes no permission."""
    try:
        found = aws.session.client("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    except ClientError as error:
        if code(error) == "AccessDenied":
            why = f"cannot read how {bucket} is encrypted (s3:GetEncryptionConfiguration is not allowed)"
            print(f"{why}: if it is with a key of KMS, nodes cannot read it", file=sys.stderr)
        elif code(error) not in NONE:
            raise
        return None
    defaults = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in found["Rules"]]
    named = next((one["KMSMasterKeyID"] for one in defaults if one.get("KMSMasterKeyID")), None)
    return named if named is None or ":key/" in named else _looked_up(aws, bucket, named)


def _looked_up(aws: Aws, bucket: str, key: str) -> str:
    """The ARN of a key that is named by its id or an alias, in the region of its bucket."""
    region = aws.session.client("s3").get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
    found: str = aws.session.client("kms", region_name=region).describe_key(KeyId=key)["KeyMetadata"]["Arn"]
    return found
