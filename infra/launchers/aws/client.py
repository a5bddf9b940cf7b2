"""One cluster's corner of an AWS account, and AWS's refusals in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from infra.launchers.policies import Account
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class Aws:
    """Who asks, in whose account, for which cluster."""

    session: boto3.Session
    account: Account
    cluster: str

    @property
    def ec2(self) -> Any:
        return self.session.client("ec2")

    @property
    def iam(self) -> Any:
        return self.session.client("iam")


@contextmanager
def translate_aws_errors() -> Iterator[None]:
    """What AWS refuses is the user's to settle: credentials, permissions, quotas."""
    try:
        yield
    except NoCredentialsError:
        raise InputError("found no AWS credentials: `aws configure sso`, or set AWS_PROFILE") from None
    except (BotoCoreError, ClientError) as error:
        raise InputError(f"AWS: {error}") from None


def code(error: ClientError) -> str:
    found: str = error.response["Error"]["Code"]
    return found
