"""A connection to the jobs server of a Ray cluster, which listens beside its dashboard."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp

from llm4seg.utils.errors import InputError

TALKATIVE = ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging")
RAYS_OWN = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # Ray would take either for any address given
LOST = (RuntimeError, OSError, aiohttp.ClientError)  # what Ray's client raises for refusals and broken connections


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Lend Ray's client. Raises InputError when nobody answers there or any more, or a request is refused."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in TALKATIVE:
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    with _without(*RAYS_OWN):
        try:
            yield JobSubmissionClient(address)
        except AuthenticationError as error:
            raise InputError(f"{address}: {' '.join(str(error).split())}") from None
        except ConnectionError:
            raise InputError(f"{address}: no Ray dashboard answers there") from None
        except LOST as error:
            raise InputError(f"{address}: Ray's dashboard: {_ends_of(str(error))}") from None


def _ends_of(text: str) -> str:
    """First and last line: a refusal may hold a traceback of the server's."""
    first, *rest = text.strip().splitlines() or ["no answer"]
    return f"{first} ... {rest[-1].strip()}" if rest else first


@contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
