"""Files on a web server, through fsspec. Credentials, if any, come from ~/.netrc."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
from fsspec.implementations.http import HTTPFileSystem, HTTPStreamFile

from llm4seg.llm_sources.storage.transport import (
    CHUNK,
    CONNECT_SECONDS,
    READ_SECONDS,
    Answer,
    UnavailableError,
    refusal,
    total_size,
    without_secrets,
)
from llm4seg.utils.errors import InputError


class HTTPTransport:
    """A folder on a web server (see `Transport`)."""

    remedy = "user and password are taken from ~/.netrc"

    def __init__(
        self, folder: str, headers: Mapping[str, str], middlewares: Sequence[aiohttp.ClientMiddlewareType] = ()
    ) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        self._folder = folder.rstrip("/")
        # trust_env: proxies and ~/.netrc; read_bufsize: what has come and is not read yet is lost with the connection
        options = {"timeout": timeout, "trust_env": True, "read_bufsize": CHUNK, "middlewares": middlewares}
        self._files = HTTPFileSystem(client_kwargs=options, skip_instance_cache=True)
        self._headers = {**headers, "Accept-Encoding": "identity"}  # or lengths would be those of something packed

    def place(self, name: str = "") -> str:
        return f"{self._folder}/{name}".rstrip("/")

    def address(self, name: str) -> str:
        """Where a file is asked for."""
        return f"{self._folder}/{quote(name)}"

    def sha256(self, name: str) -> str | None:
        """Not known to a web server."""

    @contextmanager
    def open(self, name: str, start: int, stop: int | None) -> Iterator[Answer]:
        wanted = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        address = self.address(name)
        with self._explained(name):
            # block_size 0: a stream of what one request brings; size 1: no request before it to ask for the size
            stream = self._files.open(address, block_size=0, size=1, headers=self._headers | wanted)
        try:
            yield self._answer(name, stream)
        finally:
            stream.close()

    def _answer(self, name: str, stream: HTTPStreamFile) -> Answer:
        headers, ranged = stream.r.headers, stream.r.status == 206
        size = total_size(headers.get("Content-Range", "") if ranged else headers.get("Content-Length", ""))
        version = headers.get("ETag", headers.get("Last-Modified"))
        if size is None:
            raise InputError(f"{self.place(name)}: the server does not say how long it is")
        return Answer(size, version, ranged, self._chunks(name, stream))

    def _chunks(self, name: str, stream: HTTPStreamFile) -> Iterator[bytes]:
        while True:
            with self._explained(name):
                chunk = stream.read(CHUNK)
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Errors of fsspec and aiohttp as those of `Transport.open`."""
        try:
            yield
        except aiohttp.ClientResponseError as error:
            raise refusal(error.status, self.place(name), self.remedy) from None
        except (aiohttp.InvalidURL, aiohttp.ClientSSLError) as error:
            raise InputError(f"{self.place(name)}: {_said(error)}") from None
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(_said(error)) from None


def _said(error: Any) -> str:
    return without_secrets(str(error)) or type(error).__name__
