"""Files on this machine, mapped into memory: a part costs its own bytes, and nothing is copied."""

import mmap
from pathlib import Path
from types import TracebackType
from typing import Self

from llm4seg.utils.errors import InputError
from llm4seg.utils.files import sha256_file


def mapped(path: Path, start: int, stop: int, access: int = mmap.ACCESS_COPY) -> memoryview:
    """A part of a file. It can be written to, as torch wants, but the file does not change by that."""
    if start == stop:
        return memoryview(b"")
    before = start % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), stop - start + before, access=access, offset=start - before)
    return memoryview(data)[before:]


class LocalFolder:
    """A folder on this machine (see `Storage`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, name: str = "") -> str:
        return str(self._folder / name)

    def text(self, name: str, optional: bool = False, errors: str = "strict") -> str | None:
        path = self._folder / name
        try:
            return path.read_text(encoding="utf-8", errors=errors) if path.is_file() else None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not a text file: {error}") from None

    def size(self, name: str) -> int | None:
        path = self._folder / name
        return path.stat().st_size if path.is_file() else None

    def version(self, name: str) -> None:
        """Unknown: a file's time says where it has been, not what is in it."""

    def sha256(self, name: str) -> str:
        return sha256_file(self._folder / name)

    def read(self, name: str, start: int, stop: int) -> memoryview:
        return mapped(self._folder / name, start, stop)

    def head(self, name: str, start: int, least: int) -> memoryview:
        """All the rest of the file: what is not looked at is not read from disk."""
        path = self._folder / name
        return mapped(path, start, path.stat().st_size, mmap.ACCESS_READ)

    def expect(self, nbytes: int) -> None:
        """Reading from here needs no progress bar."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to leave in order."""
