"""Try again what may fail for reasons that pass, with longer and longer waits between the attempts."""

import sys
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
from tqdm import tqdm

from llm4seg.llm_sources.storage.transport import UnavailableError
from llm4seg.utils.errors import UserError

ATTEMPTS = 7  # with the waits between them about half a minute
WAIT = wait_exponential_jitter(multiplier=0.5, max=30)
Result = TypeVar("Result")


class UnreachableError(UserError):
    """The place did not answer, however often it was asked."""


def persistently(place: str, action: Callable[[], Result]) -> Result:
    """What `action` returns, as soon as it does not raise UnavailableError. Raises UnreachableError in the end."""
    attempts = Retrying(
        retry=retry_if_exception_type(UnavailableError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=WAIT,
        before_sleep=lambda state: _say_why(place, state),
        reraise=True,
    )
    try:
        return attempts(action)
    except UnavailableError as error:
        raise UnreachableError(
            f"{place}: {error}; gave up after {ATTEMPTS} attempts, run again to go on from here"
        ) from None


def _say_why(place: str, state: RetryCallState) -> None:
    assert state.outcome is not None
    assert state.next_action is not None
    why, seconds = state.outcome.exception(), state.next_action.sleep
    tqdm.write(f"{place}: {why}; trying again in {seconds:.1f} s", file=sys.stderr)
