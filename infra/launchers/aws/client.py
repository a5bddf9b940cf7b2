"""Clients of AWS for one cluster in one account, and AWS's errors as InputError."""

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
    """A session, the account it is in, and the cluster it is for."""

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
    """Errors of AWS as InputError: credentials, permissions, quotas are the user's to settle."""
    try:
        yield
    except NoCredentialsError:
        raise InputError("found no AWS credentials: `aws configure sso`, or set AWS_PROFILE") from None
    except (BotoCoreError, ClientError) as error:
        raise InputError(f"AWS: {error}") from None
