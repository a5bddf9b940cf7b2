"""A bucket in order: created if there is none, refused if it is somebody else's, each setting mended."""

from infra.storage.bucket import Bucket, NotImplementedThere, create, find
from infra.storage.s3_location import S3Location
from infra.storage.server import Server
from infra.storage.settings import (
    OWN_TAG,
    Row,
    Setting,
    check_nothing_deletes_data,
    lifecycle,
    public_access,
    settle,
    tags,
    tls_only,
    versioning,
)
from llm4seg.utils.errors import InputError


def wanted(location: S3Location, server: Server, run_days: int, version_days: int) -> list[Setting]:
    """What the bucket is to be like. Over plain http there is nothing that could ask for TLS."""
    plain_http = (server.endpoint or "").startswith("http://")
    arn = f"arn:{server.client.meta.partition}:s3:::{location.bucket}"
    transport = [] if plain_http else [tls_only(arn)]
    return [tags(), public_access(), *transport, versioning(), lifecycle(location, run_days, version_days)]


def set_up(location: S3Location, server: Server, settings: list[Setting], adopt: bool, rows: list[Row]) -> Server:
    """Put a row for each check into `rows` as it is done; returns the server, with the bucket's region.

    Raises InputError for a bucket that is not ours, whose data are deleted by other rules, or that is not private.
    """
    bucket = find(location.bucket, server)
    if bucket is None:
        bucket = create(location.bucket, server)
        rows.append(Row("bucket", "none", f"created, in {bucket.server.region}"))
    else:
        rows.append(_existing(bucket, adopt))
        check_nothing_deletes_data(location, bucket)
    rows += (settle(setting, bucket) for setting in settings)
    if any(row.missing and row.check == public_access().name for row in rows):
        if bucket.is_open_to_anyone():
            raise InputError(f"s3://{bucket.name}: not private: {server.endpoint} answers requests that nobody signed")
        rows.append(Row("unsigned requests", "refused"))
    return bucket.server


def _existing(bucket: Bucket, adopt: bool) -> Row:
    """Raises InputError for a bucket that this command did not make."""
    region, (key, value) = bucket.server.region, OWN_TAG
    try:
        ours = tags().read(bucket.call("get_bucket_tagging")).get(key) == value
        reason = f"has no tag {key}={value}"
    except NotImplementedThere:
        ours, reason = False, "cannot be recognized, since the server keeps no tags"
    if not (ours or adopt):
        raise InputError(
            f"s3://{bucket.name}: exists and {reason}; if it is yours, --adopt sets it up and keeps all in it"
        )
    return Row("bucket", f"in {region}" if ours else f"in {region}, adopted")
