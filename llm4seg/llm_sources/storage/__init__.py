"""Where a checkpoint's files lie: on this machine or elsewhere, any part of them can be read."""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

NEAR = 64  # parts with no more bytes between them are read as one: GGUF pads its tensors


class Storage(Protocol):
    """A folder of files, opened; `name` is a file's path within it. `with` tells it how the reading ended."""

    def place(self, name: str = "") -> str:
        """The path or address of a file, or of the folder, for messages: there is no password in it."""

    def text(self, name: str, optional: bool = False, errors: str = "strict") -> str | None:
        """A small file, read whole; None where there is none. `errors`: of decoding, as in `bytes.decode`.

        Some servers say of what is absent that it is not allowed: from one that has lent another file before, that
        stands for an `optional` file's absence.
        """

    def size(self, name: str) -> int | None:
        """A file's length in bytes; None where there is none."""

    def version(self, name: str) -> str | None:
        """What changes when the file does, as far as the place says; None where it does not."""

    def sha256(self, name: str) -> str | None:
        """A file's sha256; None where all of it would have to be transferred."""

    def read(self, name: str, start: int, stop: int) -> memoryview:
        """The bytes from `start` to before `stop`."""

    def head(self, name: str, start: int, least: int) -> memoryview:
        """At least `least` bytes from `start`, unless the file ends before; more where they cost little."""

    def expect(self, nbytes: int) -> None:
        """Say how much is going to be read from now on."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def read_spans(storage: Storage, name: str, spans: Mapping[str, tuple[int, int]]) -> dict[str, memoryview]:
    """Named parts (start, stop) of a file; those that lie side by side are read as one."""
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
