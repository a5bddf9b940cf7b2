"""The location of a project's data and runs: a bucket, a prefix in it, and a server's address where it is not AWS's."""

import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from llm4seg.utils.errors import InputError

DEFAULT_REGION = "us-east-1"  # of S3 where nobody names one
# no dots: the certificate for *.s3.amazonaws.com does not cover names with more of them
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class S3Location:
    """s3://bucket/prefix, with what this project keeps there: dvc/, runs/ and jobs/."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> "S3Location":
        """Raises InputError for another scheme, a name that S3 does not allow, and no prefix."""
        scheme, _, rest = url.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not prefix.strip("/"):
            raise InputError(f"found {_without_password(url)!r}, allowed: s3://BUCKET/PREFIX")
        allowed = {
            "bucket": (bucket, _BUCKET, "3 to 63 of a-z, 0-9 and -, no - first or last"),
            "prefix": (prefix.rstrip("/"), _PREFIX, "names of A-Z, a-z, 0-9, ., _ and -, with / between them"),
        }
        for part, (found, pattern, words) in allowed.items():
            if not pattern.fullmatch(found):
                raise InputError(f"{part}: found {_without_password(found)!r}, allowed: {words}")
        return cls(bucket, prefix.rstrip("/"))

    def key(self, name: str) -> str:
        """What keys of one kind begin with: `dvc` gives prefix/dvc/."""
        return f"{self.prefix}/{name}/"

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}/{name}"

    def run_storage(self, endpoint: str | None, region: str | None) -> str:
        """The value for cluster.storage; without an endpoint the region is looked up from the bucket's name."""
        return storage_url(self.url("runs"), endpoint, region or DEFAULT_REGION if endpoint else None)


def storage_url(url: str, endpoint: str | None, region: str | None) -> str:
    """An s3:// url with a server's address and a region in its query, as Arrow's file system reads them."""
    query = {}
    if endpoint:
        parts = urlsplit(endpoint)
        query = {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    if region:
        query["region"] = region
    return url + (f"?{urlencode(query, safe=':')}" if query else "")


def _without_password(text: str) -> str:
    """A mistyped address may hold a password; what is before an @ is never repeated."""
    return re.sub(r"[^/@\s]*@", "...@", text)


def check_endpoint(url: str, allow_http: bool) -> str:
    """A server's address. Raises InputError for what is not http(s)://HOST[:PORT], and plain http over a network."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or "@" in parts.netloc:
        raise InputError(f"--endpoint-url: found {_without_password(url)!r}, allowed: https://HOST[:PORT]")
    if parts.scheme == "http" and not allow_http and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise InputError(
            f"--endpoint-url: found {url}, over which images and credentials' signatures travel in the clear; "
            "allowed: https, or --allow-http where the network is yours"
        )
    return url.rstrip("/")
