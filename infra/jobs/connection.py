"""A connection to the job server of a Ray cluster, which listens beside its dashboard."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp

from llm4seg.utils.errors import InputError

NOISY_LOGGERS = ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging")
RAY_ADDRESS_VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # Ray would take either for any address given
# what Ray's client raises for refusals and broken connections
CONNECTION_ERRORS = (RuntimeError, OSError, aiohttp.ClientError)


@contextmanager
def job_server(address: str) -> Iterator[Any]:
    """Ray's `JobSubmissionClient`. Raises InputError when no server answers, also later, or a request is refused."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in NOISY_LOGGERS:
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    with _without(*RAY_ADDRESS_VARIABLES):
        try:
            yield JobSubmissionClient(address)
        except AuthenticationError as error:
            raise InputError(f"{address}: {' '.join(str(error).split())}") from None
        except ConnectionError:
            raise InputError(f"{address}: no Ray dashboard answers there") from None
        except CONNECTION_ERRORS as error:
            raise InputError(f"{address}: Ray's dashboard: {_first_and_last_line(str(error))}") from None


def _first_and_last_line(text: str) -> str:
    """A refusal may hold a traceback of the server's."""
    first, *rest = text.strip().splitlines() or ["no answer"]
    return f"{first} ... {rest[-1].strip()}" if rest else first


@contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
