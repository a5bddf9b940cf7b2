"""A bucket: found in the caller's own account, or created; what a server lacks differs from what it refuses."""

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from infra.storage.server import Server, code, status

NOT_SET = {
    "NoSuchTagSet",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
}
# the last two come from servers that take every PUT on a bucket for its creation
UNKNOWN = {"NotImplemented", "MalformedXML", "MethodNotAllowed", "BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


class NotImplementedThere(Exception):
    """A server that speaks S3 has no such setting."""


@dataclass(frozen=True)
class Bucket:
    """A bucket on a server, in whose region it is."""

    name: str
    server: Server

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The server's answer; {} where nothing is set. Raises NotImplementedThere."""
        try:
            answer: dict[str, Any] = getattr(self.server.client, operation)(Bucket=self.name, **arguments)
        except ResponseParserError:
            raise NotImplementedThere(operation) from None
        except ClientError as error:
            if code(error) in NOT_SET:
                return {}
            if code(error) in UNKNOWN or status(error) in (405, 501):
                raise NotImplementedThere(operation) from None
            raise
        return answer

    def is_open_to_anyone(self) -> bool:
        """Whether the server lists it for a request that nobody signed."""
        try:
            self.server.anyone.list_objects_v2(Bucket=self.name, MaxKeys=1)
        except ClientError as error:
            return status(error) not in (401, 403)
        return True


def find(name: str, server: Server) -> Bucket | None:
    """The bucket, in its own region; None where there is none. Raises ClientError if it is another account's."""
    try:
        # a stranger's bucket may let everyone in, to be given their data
        answer = server.client.head_bucket(Bucket=name, **server.expected_owner())
    except ClientError as error:
        if status(error) == 404:
            return None
        raise
    return Bucket(name, server.in_region(answer.get("BucketRegion")))


def create(name: str, server: Server) -> Bucket:
    """A new bucket; on AWS only in a region that somebody named."""
    region = server.region_to_create_in()
    where = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
    server.client.create_bucket(Bucket=name, **where)
    return Bucket(name, server.in_region(region))
