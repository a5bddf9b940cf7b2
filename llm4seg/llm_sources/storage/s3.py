"""Files in S3 or what speaks like it, through boto3; address and credentials are found as AWS's own tools do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    SSLError,
)

from llm4seg.llm_sources.storage.transport import (
    CHUNK,
    CONNECT_SECONDS,
    READ_SECONDS,
    Answer,
    UnavailableError,
    refusal,
    total_size,
    without_secrets,
)
from llm4seg.utils.errors import InputError

REMEDY = "credentials come from the environment, ~/.aws or the machine's role; AWS_PROFILE chooses among them"


class S3Transport:
    """The objects of a bucket whose keys begin with `prefix` (see `Transport`)."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix.strip("/")
        once = Config(
            connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": 1}
        )  # RemoteFolder tries again, and it alone
        with self._explained(""):
            self._client = boto3.Session().client("s3", config=once)

    def place(self, name: str = "") -> str:
        return f"s3://{self._bucket}/{self._key(name)}".rstrip("/")

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}".strip("/")

    def sha256(self, name: str) -> str | None:
        """Not asked for: S3 states that of parts, if any."""

    @contextmanager
    def open(self, name: str, start: int, stop: int | None) -> Iterator[Answer]:
        wanted = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        with self._explained(name):
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(name), **wanted)
        try:
            yield self._answer(name, found)
        finally:
            found["Body"].close()

    def _answer(self, name: str, found: dict[str, Any]) -> Answer:
        ranged = found["ResponseMetadata"]["HTTPStatusCode"] == 206
        size = total_size(found.get("ContentRange", "")) if ranged else found.get("ContentLength")
        if size is None:
            raise UnavailableError("the answer broke off")  # in its headers, which boto3 lets pass
        version = found.get("VersionId", "null")
        version = found.get("ETag") if version == "null" else version
        return Answer(size, version, ranged, self._chunks(name, found["Body"]))

    def _chunks(self, name: str, body: Any) -> Iterator[bytes]:
        while True:
            with self._explained(name):
                chunk = body.read(CHUNK)
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Errors of boto3 as those of `Transport.open`."""
        try:
            yield
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                raise InputError(f"{self.place(name)}: there is no bucket {self._bucket}") from None
            raise refusal(error.response["ResponseMetadata"]["HTTPStatusCode"], self.place(name), REMEDY) from None
        except SSLError as error:
            raise InputError(f"{self.place(name)}: {without_secrets(str(error))}") from None
        except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
            raise UnavailableError(without_secrets(str(error))) from None
        except BotoCoreError as error:
            raise InputError(f"{self.place(name)}: {without_secrets(str(error))}; {REMEDY}") from None
