"""Files elsewhere, of which only the parts asked for are transferred: tried again, gone on with, checked.

A part is kept under the cache until what it was needed for is done, so that an interrupted fetch goes on where it was.
"""

import fcntl
import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tqdm import tqdm

from llm4seg.llm_sources.storage.local import LocalFolder, mapped
from llm4seg.llm_sources.storage.retry import UnreachableError, persistently
from llm4seg.llm_sources.storage.transport import Answer, NotAllowedError, Transport, UnavailableError
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import remove, replacing, sha256_file

BLOCK = 1 << 15  # of a header that says nowhere how long it is


@dataclass(frozen=True)
class FileState:
    """What is known of a file; it must not change while it is read."""

    size: int
    version: str | None
    ranged: bool


class RemoteFolder:
    """A folder elsewhere (see `Storage`). `whole_files`: whether a server that cannot send parts may send all."""

    def __init__(self, transport: Transport, cache: Path, whole_files: bool) -> None:
        self._transport = transport
        self._cache = cache
        self._whole_files = whole_files
        self._states: dict[str, FileState] = {}
        self._contents: dict[str, bytes] = {}
        self._parts: list[Path] = []
        self._downloaded: set[str] = set()
        self._bar: tqdm | None = None

    def place(self, name: str = "") -> str:
        return self._transport.place(name)

    def text(self, name: str, optional: bool = False, errors: str = "strict") -> str | None:
        try:
            return self._content(name).decode("utf-8", errors)
        except FileNotFoundError:
            return None
        except NotAllowedError:
            if optional and self._states:  # it lends other files: S3 to those who may not list, CloudFront and others
                return None
            raise
        except UnicodeDecodeError as error:
            raise InputError(f"{self.place(name)}: not a text file: {error}") from None

    def _content(self, name: str) -> bytes:
        def ask() -> bytes:
            with self._transport.open(name, 0, None) as answer:
                self._states[name] = FileState(answer.size, answer.version, answer.ranged)
                return b"".join(answer.chunks)

        if name not in self._contents:
            self._contents[name] = persistently(self.place(name), ask)
        return self._contents[name]

    def size(self, name: str) -> int | None:
        try:
            return self._state(name).size
        except FileNotFoundError:
            return None

    def version(self, name: str) -> str | None:
        return self._state(name).version

    def sha256(self, name: str) -> str | None:
        if name in self._contents:
            return hashlib.sha256(self._contents[name]).hexdigest()
        if not self._state(name).ranged:
            return sha256_file(self._whole(name) / name)
        return persistently(self.place(name), lambda: self._transport.sha256(name))

    def read(self, name: str, start: int, stop: int) -> memoryview:
        if not self._state(name).ranged:
            return LocalFolder(self._whole(name)).read(name, start, stop)
        return mapped(self._part(name, start, stop), 0, stop - start)

    def head(self, name: str, start: int, least: int) -> memoryview:
        return self.read(name, start, min(self._state(name).size, start + max(least, BLOCK)))

    def expect(self, nbytes: int) -> None:
        self._bar = _bar(self.place(), nbytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Parts that were used, or are of no use, go; those of an interrupted fetch stay for the next one."""
        if self._bar is not None:
            self._bar.close()
        if kind is None or (issubclass(kind, UserError) and not issubclass(kind, UnreachableError)):
            for part in self._parts:
                remove(part)

    def _state(self, name: str) -> FileState:
        """What is known of a file, asked with a request for its first byte. Raises FileNotFoundError."""

        def ask() -> FileState:
            with self._transport.open(name, 0, 1) as answer:
                return FileState(answer.size, answer.version, answer.ranged)

        if name not in self._states:
            self._states[name] = persistently(self.place(name), ask)
        return self._states[name]

    def _part(self, name: str, start: int, stop: int) -> Path:
        """A part of a file as a file in the cache, complete."""
        state = self._state(name)
        part = self._cache / "parts" / _digest(self.place(name), state.size, state.version, start, stop)
        part.parent.mkdir(parents=True, exist_ok=True)
        self._parts.append(part)
        if state.version is None:
            remove(part)  # of an earlier fetch: it cannot be told whether the file has changed since
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # of two fetches of the same part, the second finds it done
            self._advance(file.seek(0, 2))
            while file.tell() < stop - start:
                persistently(self.place(name), lambda: self._go_on(file, name, start, stop))
        return part

    def _go_on(self, file: BinaryIO, name: str, start: int, stop: int) -> None:
        """Append what is missing, or some of it: only a connection that brings nothing at all is a failure."""
        before = file.tell()
        try:
            with self._transport.open(name, start + before, stop) as answer:
                self._check_same(name, answer)
                for chunk in answer.chunks:
                    self._advance(file.write(chunk[: stop - start - file.tell()]))
        except UnavailableError:
            if file.tell() == before:
                raise
        if file.tell() == before:
            raise UnavailableError("the server sent nothing")

    def _check_same(self, name: str, answer: Answer) -> None:
        if answer.version is None and self._state(name).version is not None:
            raise UnavailableError("the answer broke off")
        if FileState(answer.size, answer.version, answer.ranged) != self._state(name):
            raise InputError(f"{self.place(name)}: changed while it was read; run again")

    def _whole(self, name: str) -> Path:
        """The folder in the cache that holds a whole file, for a server that cannot send parts."""
        state = self._state(name)
        if not self._whole_files:
            raise InputError(
                f"{self.place(name)} ({state.size:,} bytes): its server sends whole files only; "
                "either download it yourself and name it in llm.source, or set llm.whole_files: true"
            )
        folder = self._cache / "whole" / _digest(self.place(name), state.size, state.version)
        if name not in self._downloaded and (state.version is None or not (folder / name).is_file()):
            with replacing(folder / name) as partial:
                persistently(self.place(name), lambda: self._download(name, partial))
        self._downloaded.add(name)
        return folder

    def _download(self, name: str, target: Path) -> None:
        with self._transport.open(name, 0, None) as answer, target.open("wb") as file:
            self._check_same(name, answer)
            with _bar(self.place(name), answer.size) as bar:
                for chunk in answer.chunks:
                    bar.update(file.write(chunk))

    def _advance(self, nbytes: int) -> None:
        if self._bar is not None:
            self._bar.update(nbytes)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _bar(what: str, nbytes: int) -> tqdm:
    return tqdm(desc=f"fetch {what}", total=nbytes, unit="B", unit_scale=True, disable=None)
