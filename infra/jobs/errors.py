"""What DVC and its bucket refuse: tried again on the head node, said in one line on the laptop."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tenacity
from botocore.exceptions import BotoCoreError, ClientError

from infra.storage import server
from llm4seg.utils.errors import S3_CREDENTIALS, InputError, without_secrets

PATIENCE = 300.0  # seconds


def refusals() -> tuple[type[Exception], ...]:
    """What DVC raises when its bucket cannot be reached or refuses: its file system lets errors of boto through."""
    from dvc.exceptions import DvcException

    return DvcException, OSError, BotoCoreError, ClientError


def patient(save: Callable[..., None]) -> Callable[..., None]:
    """Try again while the network or the storage refuses; it would be a pity."""
    return tenacity.retry(
        retry=tenacity.retry_if_exception_type(refusals()),
        wait=tenacity.wait_exponential(multiplier=0.5, max=15),
        stop=tenacity.stop_after_delay(PATIENCE),
        before_sleep=_say_once,
        reraise=True,
    )(save)


def _say_once(state: tenacity.RetryCallState) -> None:
    """Why nothing seems to happen."""
    if state.attempt_number == 1 and state.outcome:
        why = _one_line(state.outcome.exception())
        print(f"the DVC remote: {why}; tried again for {PATIENCE:g} s", file=sys.stderr, flush=True)


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Refusals of DVC, and of the bucket at a place, as InputError."""
    try:
        with explained_by_dvc(), server.explained(place):
            yield
    except PermissionError as error:
        raise InputError(f"s3://{place}: {_one_line(error)}; {S3_CREDENTIALS}") from None
    except OSError as error:
        raise InputError(f"s3://{place}: {_one_line(error)}") from None


@contextmanager
def explained_by_dvc() -> Iterator[None]:
    """What DVC finds wrong with its files as InputError."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        more = "; `dvc status` shows where" if hasattr(error, "__pretty_exc__") else ""
        raise InputError(f"DVC: {_one_line(error)}{more}") from None


def _one_line(error: BaseException | None) -> str:
    return without_secrets(" ".join(str(error).split())) or type(error).__name__
