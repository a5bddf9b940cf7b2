"""What a place elsewhere must offer, and what can go wrong on the way there."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from llm4seg.utils.errors import InputError

CONNECT_SECONDS, READ_SECONDS = 30, 60  # without an answer, without a byte
CHUNK = 1 << 16  # read at once, and so the most that a broken connection loses


class UnavailableError(Exception):
    """No answer, or half of one: the same request may succeed later."""


class NotAllowedError(InputError):
    """Reading a file is not allowed; or, from some servers, there is none."""


@dataclass(frozen=True)
class Answer:
    """A file, or the part asked for: `size` and `version` are the whole file's, its bytes come as they arrive."""

    size: int
    version: str | None
    ranged: bool  # False: the server sends the whole file, whatever it was asked for
    chunks: Iterator[bytes]


class Transport(Protocol):
    """A folder elsewhere. One request gets one answer; `RemoteFolder` tries again, goes on and checks."""

    def place(self, name: str = "") -> str:
        """The address of a file or of the folder, without secrets."""

    def open(self, name: str, start: int, stop: int | None) -> AbstractContextManager[Answer]:
        """Ask for the bytes from `start` to before `stop` (None: for the whole file).

        Raises FileNotFoundError, UnavailableError, or InputError for what another attempt would not change.
        """

    def sha256(self, name: str) -> str | None:
        """A file's sha256 as the place states it, if it does."""


def without_secrets(text: str) -> str:
    """A message without what may stand in an address: user and password, and a query, which may be a signature."""
    return re.sub(r"(\w+://)[^/\s@'\"]*@", r"\1", re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1", text))


def refusal(status: int, place: str, remedy: str) -> Exception:
    """What an HTTP status other than success means; `remedy` says where the right to read comes from."""
    if status == 404:
        return FileNotFoundError(place)
    if status in (408, 429) or status >= 500:
        return UnavailableError(f"the server answered {status}")
    if status in (401, 403):
        return NotAllowedError(f"{place}: the server answered {status}, not allowed; {remedy}")
    return InputError(f"{place}: the server answered {status}")


def total_size(content_range: str) -> int | None:
    """The whole file's length out of `Content-Range: bytes 0-99/1234`."""
    total = content_range.rpartition("/")[2]
    return int(total) if total.isdecimal() else None
