"""AWS, or another server that speaks S3: its address, its region, a client for it; refusals in one line each."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from infra.storage.s3_location import DEFAULT_REGION, check_endpoint
from llm4seg.utils.errors import S3_CREDENTIALS, InputError, without_secrets

CLIENT_CONFIG = Config(connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3})


@dataclass(frozen=True)
class Server:
    """Where buckets are; `endpoint` is None for AWS, `region` None where nobody named one."""

    endpoint: str | None
    region: str | None

    @classmethod
    def named(cls, endpoint: str | None, region: str | None, allow_http: bool) -> "Server":
        """With what the environment and the profile add. Raises InputError for an address that will not do."""
        session = boto3.Session(region_name=region)
        client = session.client("s3", endpoint_url=endpoint and check_endpoint(endpoint, allow_http))
        found = str(client.meta.endpoint_url)
        aws = (urlsplit(found).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
        return cls(None if aws else check_endpoint(found, allow_http), session.region_name)

    @functools.cached_property
    def client(self) -> Any:
        """Signs requests with the caller's credentials."""
        return self._connect(CLIENT_CONFIG)

    @functools.cached_property
    def anyone(self) -> Any:
        """Signs no request."""
        return self._connect(CLIENT_CONFIG.merge(Config(signature_version=UNSIGNED)))

    def _connect(self, config: Config) -> Any:
        return boto3.Session(region_name=self.region).client("s3", endpoint_url=self.endpoint, config=config)

    def in_region(self, region: str | None) -> "Server":
        """The same server, where a bucket turned out to be."""
        known = region or self.region or DEFAULT_REGION
        return self if known == self.region else replace(self, region=known)

    def expected_owner(self) -> dict[str, str]:
        """On AWS, the caller's account, for requests that are to fail elsewhere; asking for it needs no permission."""
        if self.endpoint:
            return {}
        sts = boto3.Session().client("sts", region_name=self.region or DEFAULT_REGION, config=CLIENT_CONFIG)
        return {"ExpectedBucketOwner": sts.get_caller_identity()["Account"]}

    def region_to_create_in(self) -> str:
        """Raises InputError on AWS if nobody named a region."""
        if self.endpoint is None and self.region is None:
            raise InputError(
                "--region: found none, and a new bucket, with your data, must be somewhere: --region eu-west-1"
            )
        return self.region or DEFAULT_REGION


def code(error: ClientError) -> str:
    """S3's word for an error."""
    return str(error.response["Error"].get("Code", ""))


def status(error: ClientError) -> int:
    """The HTTP status of an error."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


@contextmanager
def translate_s3_errors(bucket: str) -> Iterator[None]:
    """Errors of boto3 as InputError, one line each."""
    try:
        yield
    except ClientError as error:
        raise InputError(f"s3://{bucket}: {_refusal(error)}") from None
    except (ConnectionError, HTTPClientError) as error:
        raise InputError(f"s3://{bucket}: {without_secrets(str(error))}") from None
    except BotoCoreError as error:
        raise InputError(f"s3://{bucket}: {without_secrets(str(error))}; {S3_CREDENTIALS}") from None


def _refusal(error: ClientError) -> str:
    """S3's own sentence, without its markup; HEAD has none."""
    action = f"s3:{error.operation_name}"
    if error.operation_name == "HeadBucket" and status(error) in (401, 403):
        return (
            "forbidden: it is another account's bucket, or these credentials are not valid or lack s3:ListBucket on it"
        )
    if status(error) in (401, 403):
        return f"forbidden: {action}: {code(error)}; docs/storage.md lists what it needs; {S3_CREDENTIALS}"
    return f"{action} was refused: {code(error)}: {' '.join(re.sub(r'<[^>]*>', ' ', str(error)).split())}"
