"""Remote files, through fsspec: only the requested ranges are transferred, each checked to be of the same file.

`hf://` is read by huggingface_hub, `s3://` by s3fs, `https://` by fsspec itself; where they are installed, `gs://` by
gcsfs and `az://` by adlfs.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import fsspec
from fsspec.callbacks import TqdmCallback
from tqdm import tqdm

from llm4seg.llm_sources.retry import NotAllowedError, UnavailableError, retrying
from llm4seg.llm_sources.storage import LocalFolder
from llm4seg.utils.errors import S3_CREDENTIALS, InputError
from llm4seg.utils.extras import EXTRA_OF, install
from llm4seg.utils.files import replacing, sha256_file
from llm4seg.utils.logs import bars_off

BLOCK = 16 << 20  # bytes that one request reads at most, and so the most that a broken connection loses
PARALLEL = 4  # requests at a time, where the file system is asynchronous
HEADER = 1 << 15  # bytes of a header of unknown length that are read at once
CONNECT_SECONDS, READ_SECONDS = 30, 60  # without an answer, without a byte
PLAIN = {"Accept-Encoding": "identity"}  # or lengths would be of compressed data
BAR: dict[str, Any] = {"unit": "B", "unit_scale": True}
WEB = ("http", "https")
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}  # what else is read comes with this package
REMEDIES = {
    "hf": "if it is private or gated: accept its license on its page, then `hf auth login` or set HF_TOKEN",
    "s3": S3_CREDENTIALS,
    "gs": "credentials come from `gcloud auth application-default login` or the machine's service account",
    "az": "credentials come from AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and a key or token",
} | dict.fromkeys(WEB, "user and password are taken from ~/.netrc")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FileState:
    """A remote file's size and version, which must not change while it is read. `ranged`: ranges can be read."""

    size: int
    version: str | None
    ranged: bool = True


class RemoteFolder:
    """A remote folder (see `Storage`). `whole_files`: whether a server without ranges may send whole files.

    Raises InputError when the package that reads the place is not installed.
    """

    def __init__(self, address: str, cache: Path, whole_files: bool) -> None:
        self._address, self._cache, self._whole_files = address.rstrip("/"), cache, whole_files
        self._scheme = address.partition("://")[0]
        self._files = file_system(self._scheme)
        self._states: dict[str, FileState | None] = {}
        self._contents: dict[str, bytes] = {}
        self._whole: set[str] = set()  # files that were downloaded, or found in the cache
        self._bar: tqdm | None = None

    def place(self, name: str = "") -> str:
        return f"{self._address}/{name}".rstrip("/")

    def text(self, name: str, optional: bool = False, errors: str = "strict") -> str | None:
        try:
            return None if self._state(name) is None else self._content(name).decode("utf-8", errors)
        except NotAllowedError:
            if optional and any(self._states.values()):  # other files can be read: CloudFront, S3 without listing
                return None
            raise
        except UnicodeDecodeError as error:
            raise InputError(f"{self.place(name)}: not a text file: {error}") from None

    def size(self, name: str) -> int | None:
        state = self._state(name)
        return None if state is None else state.size

    def version(self, name: str) -> str | None:
        return self._present(name).version

    def sha256(self, name: str) -> str | None:
        if name in self._contents:
            return hashlib.sha256(self._contents[name]).hexdigest()
        if not self._present(name).ranged:
            return sha256_file(self._downloaded(name) / name)
        # the hub has the sha256 of large files in their info
        about = self._retrying(name, lambda: self._files.info(self._path(name))) if self._scheme == "hf" else {}
        return str(about["lfs"].sha256) if about.get("lfs") else None

    def read(self, name: str, start: int, stop: int) -> memoryview:
        if not self._present(name).ranged:
            return LocalFolder(self._downloaded(name)).read(name, start, stop)
        data = memoryview(bytearray(stop - start))
        blocks = [(begin, min(begin + BLOCK, stop)) for begin in range(start, stop, BLOCK)]
        parallel = PARALLEL if self._files.async_impl else 1
        for first in range(0, len(blocks), parallel):
            self._fetch(name, blocks[first : first + parallel], data, start)
        self._check_unchanged(name)
        return data

    def head(self, name: str, start: int, least: int) -> memoryview:
        return self.read(name, start, min(self._present(name).size, start + max(least, HEADER)))

    @contextmanager
    def progress(self, nbytes: int) -> Iterator[None]:
        with tqdm(desc=f"fetch {self.place()}", total=nbytes, disable=bars_off(), **BAR) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def _path(self, name: str) -> str:
        """A file's path in its file system."""
        return f"{self._address}/{quote(name)}" if self._scheme in WEB else self.place(name)

    def _retrying(self, name: str, action: Callable[[], Result]) -> Result:
        return retrying(self.place(name), REMEDIES[self._scheme], action)

    def _state(self, name: str) -> FileState | None:
        """A file's state, requested once; None where the file is absent."""
        if name not in self._states:
            self._states[name] = self._request_state(name)
        return self._states[name]

    def _present(self, name: str) -> FileState:
        state = self._state(name)
        if state is None:
            raise InputError(f"{self.place(name)}: no such file")
        return state

    def _request_state(self, name: str) -> FileState | None:
        state = web_state if self._scheme in WEB else stored_state
        try:
            return self._retrying(name, lambda: state(self._files, self._path(name)))
        except FileNotFoundError:
            return None

    def _check_unchanged(self, name: str) -> None:
        if self._request_state(name) != self._states[name]:
            raise InputError(f"{self.place(name)}: changed while it was read; run again")

    def _content(self, name: str) -> bytes:
        """A small file, read once."""
        if name not in self._contents:
            self._contents[name] = self._retrying(name, lambda: self._files.cat_file(self._path(name)))
            self._check_unchanged(name)
        return self._contents[name]

    def _fetch(self, name: str, blocks: list[tuple[int, int]], into: memoryview, origin: int) -> None:
        """Read blocks of a file, several at a time, broken ones again; `into` begins at `origin`."""
        missing = list(blocks)
        uncached = {"cache_type": "none"} if self._scheme == "hf" else {}  # or it would read ahead

        def attempt() -> None:
            starts, stops = [start for start, _ in missing], [stop for _, stop in missing]
            parts = self._files.cat_ranges([self._path(name)] * len(missing), starts, stops, **uncached)
            failures = []
            for start, stop, part in zip(starts, stops, parts, strict=True):
                if isinstance(part, Exception):
                    failures.append(part)
                elif len(part) != stop - start:
                    failures.append(UnavailableError("the answer broke off"))
                else:
                    into[start - origin : stop - origin] = part
                    missing.remove((start, stop))
                    if self._bar is not None:
                        self._bar.update(len(part))
            if failures:
                raise failures[0]

        self._retrying(name, attempt)

    def _downloaded(self, name: str) -> Path:
        """The folder in the cache with a whole file, for a server without ranges."""
        state = self._present(name)
        if not self._whole_files:
            raise InputError(
                f"{self.place(name)} ({state.size:,} bytes): its server sends whole files only; "
                "either download it yourself and name it in llm.source, or set llm.whole_files: true"
            )
        about = f"{self.place(name)}\n{state.size}\n{state.version}"
        folder = self._cache / "whole" / hashlib.sha256(about.encode()).hexdigest()[:32]
        if name not in self._whole and (state.version is None or not (folder / name).is_file()):
            with replacing(folder / name) as partial:
                self._retrying(name, lambda: self._download(name, partial))
                self._check_unchanged(name)
        self._whole.add(name)
        return folder

    def _download(self, name: str, target: Path) -> None:
        with TqdmCallback({"desc": f"fetch {self.place(name)}", "disable": bars_off(), **BAR}) as callback:
            self._files.get_file(self._path(name), str(target), callback=callback)
        if target.stat().st_size != self._present(name).size:
            raise UnavailableError("the answer broke off")


def file_system(scheme: str) -> Any:
    """fsspec's file system for a scheme, shared with no other user in this process."""
    options: dict[str, Any] = {}
    if scheme == "s3":
        once = {"retries": {"total_max_attempts": 1}}  # only `retrying` retries
        options["config_kwargs"] = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, **once}
    elif scheme in WEB:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        options = {"headers": PLAIN, "client_kwargs": {"timeout": timeout, "trust_env": True}}  # proxies and ~/.netrc
    try:
        files = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    except ImportError:
        package = PACKAGES[scheme]
        command = install(package) if package in EXTRA_OF else f"pip install {package}"
        raise InputError(f"llm.source: found {scheme}://, which needs the package {package}; run `{command}`") from None
    if scheme == "s3":
        files.retries = 1
    return files


def stored_state(files: Any, path: str) -> FileState | None:
    """The state of a file in a bucket or on the hub."""
    about = files.info(path)
    if about.get("ETag") == "":  # s3fs's value for a missing ETag, which all servers send
        raise UnavailableError("the answer broke off")
    versions = (about.get(key) for key in ("VersionId", "generation", "ETag", "etag", "blob_id"))
    version = next((str(found) for found in versions if found and found != "null"), None)
    return FileState(int(about["size"]), version) if about["type"] == "file" else None


def web_state(files: Any, address: str) -> FileState:
    """The state of a file on a web server, from its response to a request for the first byte."""
    # block_size 0: a stream of what one request brings; size 1: no earlier request for the size
    with files.open(address, block_size=0, size=1, headers={**PLAIN, "Range": "bytes=0-0"}) as stream:
        headers, ranged = stream.r.headers, stream.r.status == 206
    size = (headers.get("Content-Range", "") if ranged else headers.get("Content-Length", "")).rpartition("/")[2]
    if not size.isdecimal():
        raise InputError(f"{address}: the server does not say how long it is")
    return FileState(int(size), headers.get("ETag", headers.get("Last-Modified")), ranged)
