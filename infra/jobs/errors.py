"""Errors of DVC and its bucket: retried on the head node, InputError in one line on the laptop."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tenacity
from botocore.exceptions import BotoCoreError, ClientError

from infra.storage import server
from llm4seg.utils.errors import S3_CREDENTIALS, InputError, without_secrets

TIMEOUT = 300.0  # seconds


def remote_errors() -> tuple[type[Exception], ...]:
    """What DVC raises when its bucket cannot be reached or refuses: its file system passes on errors of boto."""
    from dvc.exceptions import DvcException

    return DvcException, OSError, BotoCoreError, ClientError


def retrying(save: Callable[..., None]) -> Callable[..., None]:
    """Retry while the network or the storage fails: what a job has computed is worth the wait."""
    return tenacity.retry(
        retry=tenacity.retry_if_exception_type(remote_errors()),
        wait=tenacity.wait_exponential(multiplier=0.5, max=15),
        stop=tenacity.stop_after_delay(TIMEOUT),
        before_sleep=_print_once,
        reraise=True,
    )(save)


def _print_once(state: tenacity.RetryCallState) -> None:
    """The cause, before the first wait."""
    if state.attempt_number == 1 and state.outcome:
        cause = _one_line(state.outcome.exception())
        print(f"the DVC remote: {cause}; tried again for {TIMEOUT:g} s", file=sys.stderr, flush=True)


@contextmanager
def translate_remote_errors(path: str) -> Iterator[None]:
    """Errors of DVC, and of its bucket at a path, as InputError."""
    try:
        with translate_dvc_errors(), server.translate_s3_errors(path):
            yield
    except PermissionError as error:
        raise InputError(f"s3://{path}: {_one_line(error)}; {S3_CREDENTIALS}") from None
    except OSError as error:
        raise InputError(f"s3://{path}: {_one_line(error)}") from None


@contextmanager
def translate_dvc_errors() -> Iterator[None]:
    """Errors of DVC as InputError."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        advice = "; `dvc status` shows where" if hasattr(error, "__pretty_exc__") else ""
        raise InputError(f"DVC: {_one_line(error)}{advice}") from None


def _one_line(error: BaseException | None) -> str:
    return without_secrets(" ".join(str(error).split())) or type(error).__name__
