"""A bucket in order: created if there is none, refused if it is somebody else's, each setting mended."""

from dataclasses import dataclass

from botocore.exceptions import NoCredentialsError

from infra.storage.bucket import Bucket, NotImplementedThere, create, find
from infra.storage.lifecycle import check_nothing_deletes_data, lifecycle
from infra.storage.s3_location import S3Location
from infra.storage.server import Server
from infra.storage.settings import (
    OWN_TAG,
    Encryption,
    Ownership,
    PublicAccess,
    Row,
    Setting,
    Tags,
    TlsOnly,
    Versioning,
    settle,
)
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class Options:
    """What the caller of `set_up` decides."""

    region: str | None
    run_days: int
    version_days: int
    upload_days: int
    kms_key: str | None
    adopt: bool
    dry_run: bool


def set_up(location: S3Location, server: Server, options: Options, rows: list[Row]) -> Server:
    """Put a row for each check into `rows` as it is done; the server, with the bucket's region.

    Raises InputError for a bucket that is not ours, whose data are deleted by other rules, or that is not private.
    """
    bucket = _bucket(location, server, options, rows)
    _settle(location, bucket, server, options, rows)
    return bucket.server if bucket else server


def _bucket(location: S3Location, server: Server, options: Options, rows: list[Row]) -> Bucket | None:
    """The bucket, created if need be; None in a dry run that would create it. Raises InputError if it is not ours."""
    try:
        bucket = find(location.bucket, server)
    except NoCredentialsError:
        if not options.dry_run:
            raise
        rows.append(Row("bucket", "unknown without credentials", "would be created, or checked"))
        return None
    if bucket is not None:
        rows.append(_existing(bucket, options))
        check_nothing_deletes_data(location, bucket)
    elif options.dry_run:
        rows.append(Row("bucket", "none", "would be created"))
    else:
        bucket = create(location.bucket, server)
        rows.append(Row("bucket", "none", f"created, in {bucket.server.region}"))
    return bucket


def _existing(bucket: Bucket, options: Options) -> Row:
    """Raises InputError for a bucket that this command did not make, and one in another region than named."""
    region, (key, value) = bucket.server.region, OWN_TAG
    if options.region not in (None, region):
        raise InputError(f"s3://{bucket.name}: --region: found {options.region}, but the bucket is in {region}")
    try:
        ours, reason = Tags().read(bucket).get(key) == value, f"has no tag {key}={value}"
    except NotImplementedThere:
        ours, reason = False, "cannot be recognized, since the server keeps no tags"
    if not (ours or options.adopt):
        raise InputError(
            f"s3://{bucket.name}: exists and {reason}; if it is yours, --adopt sets it up and keeps all in it"
        )
    return Row("bucket", f"in {region}" if ours else f"in {region}, adopted")


def _settle(location: S3Location, bucket: Bucket | None, server: Server, options: Options, rows: list[Row]) -> None:
    """Bring all settings in order. Raises InputError if the bucket is not private then."""
    rules = lifecycle(location, options.upload_days, options.run_days, options.version_days)
    transport = [] if (server.endpoint or "").startswith("http://") else [TlsOnly()]
    settings: list[Setting] = [Tags(), PublicAccess(), Ownership(), *transport]
    settings += [Encryption(options.kms_key), Versioning(), *rules]
    for setting in settings:
        rows.append(settle(setting, bucket, options.dry_run))
        if bucket and rows[-1].missing and isinstance(setting, PublicAccess):
            rows.append(_refuses_anyone(bucket))
    if not transport:
        rows.append(Row("transport", f"{server.endpoint} does not encrypt", "missing there", missing=True))


def _refuses_anyone(bucket: Bucket) -> Row:
    """What stands in for a server's missing block on public access. Raises InputError."""
    if bucket.is_open_to_anyone():
        raise InputError(
            f"s3://{bucket.name}: not private: {bucket.server.endpoint} answers requests that nobody signed"
        )
    return Row("unsigned requests", "refused")
