"""`Storage`: a folder of files of which any range can be read; `LocalFolder`: one on this machine."""

import mmap
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from llm4seg.utils.errors import InputError
from llm4seg.utils.files import sha256_file

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
NEAR = 64  # ranges with no more bytes between them are read as one: GGUF pads its tensors


class Storage(Protocol):
    """A folder of files; `name` is a file's path within it."""

    def place(self, name: str = "") -> str:
        """The path or address of a file, or of the folder, for messages, without a password."""

    def text(self, name: str, optional: bool = False, errors: str = "strict") -> str | None:
        """A small text file; None where it is absent. `errors`: of decoding, as in `bytes.decode`.

        Some servers answer that an absent file is not allowed: where another file could be read, an `optional` file
        counts as absent then.
        """

    def size(self, name: str) -> int | None:
        """A file's length in bytes; None where it is absent."""

    def version(self, name: str) -> str | None:
        """A value that changes with the file, such as an ETag; None where the place has none."""

    def sha256(self, name: str) -> str | None:
        """A file's sha256; None where all of it would have to be transferred."""

    def read(self, name: str, start: int, stop: int) -> memoryview:
        """The bytes from `start` to before `stop`."""

    def head(self, name: str, start: int, least: int) -> memoryview:
        """At least `least` bytes from `start`, unless the file ends before; more where they cost little."""

    def progress(self, nbytes: int) -> AbstractContextManager[None]:
        """Context manager: a progress bar while `nbytes` are read, where that takes time."""


def check_no_lfs_pointer(storage: Storage, name: str, start: bytes | memoryview) -> None:
    """Raise InputError where a file that begins with `start` only stands for the file, in a clone without git-lfs."""
    if bytes(start[: len(LFS_POINTER)]) == LFS_POINTER:
        raise InputError(
            f"{storage.place(name)}: is a git-lfs pointer of {storage.size(name)} bytes, not the file: "
            "run `git lfs pull` in its clone"
        )


def read_spans(storage: Storage, name: str, spans: Mapping[str, tuple[int, int]]) -> dict[str, memoryview]:
    """Named ranges (start, stop) of a file; neighboring ranges are read as one."""
    runs: list[list[str]] = []
    for key in sorted(spans, key=lambda key: spans[key]):
        if runs and 0 <= spans[key][0] - spans[runs[-1][-1]][1] <= NEAR:
            runs[-1].append(key)
        else:
            runs.append([key])
    parts: dict[str, memoryview] = {}
    for run in runs:
        origin = spans[run[0]][0]
        data = storage.read(name, origin, spans[run[-1]][1])
        parts |= {key: data[spans[key][0] - origin : spans[key][1] - origin] for key in run}
    return parts


class LocalFolder:
    """A folder on this machine (see `Storage`): a range costs its own bytes, and nothing is copied."""

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
        """None: a file's time depends on how it came here, not on its content."""

    def sha256(self, name: str) -> str:
        return sha256_file(self._folder / name)

    def read(self, name: str, start: int, stop: int) -> memoryview:
        return _mapped(self._folder / name, start, stop, mmap.ACCESS_COPY)

    def head(self, name: str, start: int, least: int) -> memoryview:
        """The file from `start` to its end, memory-mapped: what is not used is not read from disk."""
        path = self._folder / name
        return _mapped(path, start, path.stat().st_size, mmap.ACCESS_READ)

    def progress(self, nbytes: int) -> AbstractContextManager[None]:
        return nullcontext()


def _mapped(path: Path, start: int, stop: int, access: int) -> memoryview:
    """A range of a file, memory-mapped. ACCESS_COPY: writable, as torch requires, without changing the file."""
    if start == stop:
        return memoryview(b"")
    before = start % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), stop - start + before, access=access, offset=start - before)
    return memoryview(data)[before:]
