"""Retries of remote reads after transient errors, and all other errors in one line."""

import logging
from collections.abc import Callable
from contextlib import suppress
from http.client import IncompleteRead
from typing import TypeVar

import aiohttp
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from llm4seg.utils.errors import InputError, UserError, without_secrets

log = logging.getLogger(__name__)

S3_FINAL: tuple[type[Exception], ...] = ()
S3_BROKEN: tuple[type[Exception], ...] = ()
with suppress(ModuleNotFoundError):  # of the extra s3, without which no place is on S3
    from botocore import exceptions as boto

    S3_FINAL = (boto.SSLError,)
    S3_BROKEN = (boto.ConnectionError, boto.HTTPClientError)
ATTEMPTS = 7  # with the waits between them about half a minute
WAIT = wait_exponential_jitter(multiplier=0.5, max=30)
FINAL = (aiohttp.ClientSSLError, aiohttp.InvalidURL, OfflineModeIsEnabled, *S3_FINAL)
BROKEN = (
    ConnectionError,
    TimeoutError,
    IncompleteRead,
    aiohttp.ClientError,
    HTTPError,  # httpx's, which huggingface_hub sends requests with
    *S3_BROKEN,
)
Result = TypeVar("Result")


class UnavailableError(Exception):
    """A transient error: no response, or an incomplete one; the same request may succeed later."""


class NotAllowedError(InputError):
    """Reading a file is not allowed; some servers respond so where the file is absent."""


def retrying(place: str, remedy: str, action: Callable[[], Result]) -> Result:
    """The result of an action that reads from a place, retried after transient errors.

    `remedy`: where credentials come from, for messages. Raises FileNotFoundError, NotAllowedError, and UserError with
    one line for any other error.
    """

    def attempt() -> Result:
        try:
            return action()
        except Exception as error:
            raise explained(error, place, remedy) from None

    attempts = Retrying(
        retry=retry_if_exception_type(UnavailableError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=WAIT,
        before_sleep=lambda state: _log(place, state),
        reraise=True,
    )
    try:
        return attempts(attempt)
    except UnavailableError as error:
        raise UserError(f"{place}: {error}; gave up after {ATTEMPTS} attempts, run again later") from None


def _log(place: str, state: RetryCallState) -> None:
    assert state.outcome is not None
    assert state.next_action is not None
    reason, seconds = state.outcome.exception(), state.next_action.sleep
    log.warning(f"{place}: {reason}; trying again in {seconds:.1f} s")


def explained(error: Exception, place: str, remedy: str) -> Exception:
    """An error of any file system as an error that `retrying` raises, by the HTTP status of its server."""
    if isinstance(error, UserError | UnavailableError):
        return error
    message = without_secrets(" ".join(str(error).split())) or type(error).__name__
    status, code = _http_status(error)
    if code == "NoSuchBucket":
        return InputError(f"{place}: there is no bucket {place.split('/')[2]}")
    if status in (401, 403):
        return NotAllowedError(f"{place}: the server answered {status}, not allowed; {remedy}")
    if status == 404 or (status is None and isinstance(error, FileNotFoundError)):
        return FileNotFoundError(place)
    if status is not None:
        if status in (408, 429) or status >= 500:
            return UnavailableError(f"the server answered {status}")
        return InputError(f"{place}: the server answered {status}")
    if isinstance(error, BROKEN) and not isinstance(error, FINAL):
        return UnavailableError(message)
    if isinstance(error, KeyError):  # of S3's headers: botocore accepts a response that broke off within them
        return UnavailableError("the answer broke off")
    if type(error).__module__ == "builtins" and not isinstance(error, OSError | ValueError):
        return error  # a mistake in the code
    return InputError(f"{place}: {message}; {remedy}")


def _http_status(error: Exception) -> tuple[int | None, str]:
    """The HTTP status in an error, and S3's word for it. Each package has its own attribute."""
    for one in (error, error.__cause__):  # s3fs raises OSErrors that botocore's caused
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), str(response["Error"].get("Code"))
    response = getattr(error, "response", None)
    for holder, name in ((error, "status"), (response, "status_code"), (error, "code")):  # aiohttp, hub, gcsfs
        if isinstance(found := getattr(holder, name, None), int):
            return found, ""
    return None, ""
