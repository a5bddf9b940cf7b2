"""Direct lines between the workers of one machine, for exchanges too small to go through gloo's threads.

gloo hands each exchange from thread to thread on both sides, and each of them has to be woken up: half a millisecond,
for some hundred bytes. Written to a Unix socket and looked for on the other side, they are there in a tenth of that.
"""

import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.constants import default_pg_timeout

LARGEST = 1 << 16  # bytes of a message
BUFFER = 4 * LARGEST  # of a socket; no worker is more than two messages ahead of another, so that sending never waits
LONGEST = 108  # bytes of a socket's path, as the system has it
PATIENCE = 0.02  # seconds to look for a message before sleeping until it is there
LIMIT = default_pg_timeout.total_seconds()  # of that sleep, as of gloo's; `cluster.timeout` comes before it


class Lines:
    """A Unix socket from this worker to each other one."""

    def __init__(self, to: dict[int, socket.socket], rank: int) -> None:
        self._to, self._rank = to, rank
        for line in to.values():
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)

    def gather(self, mine: Tensor, everyones_WS: Tensor) -> None:
        """Put all workers' tensors, of one shape on the CPU, in their places; ConnectionError if one has gone."""
        everyones_WS[self._rank] = mine
        message = _bytes(everyones_WS[self._rank])
        for rank, line in self._to.items():
            with _naming(rank):
                line.sendall(message)
        for rank, line in self._to.items():
            with _naming(rank):
                _receive(line, _bytes(everyones_WS[rank]))

    def close(self) -> None:
        _close(self._to.values())


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)


@contextmanager
def _naming(rank: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConnectionError(f"Connection to worker {rank}: {error}") from error


def _receive(line: socket.socket, into: memoryview) -> None:
    """Fill `into`. For a short while the core stays awake, but gives way to whoever wants it."""
    line.setblocking(False)
    sleep = time.monotonic() + PATIENCE
    while into:
        try:
            received = line.recv_into(into)
        except BlockingIOError:
            os.sched_yield()
            if time.monotonic() > sleep:
                line.settimeout(LIMIT)
            continue
        if not received:
            raise ConnectionResetError("closed")
        into = into[received:]


def between_workers() -> Lines | None:
    """Lines between all workers of the process group, or None where they do not share a machine's file system.

    The first call, which every worker makes, connects them.
    """
    global _known
    group = dist.group.WORLD
    if _known is None or _known[0] is not group:
        if _known is not None and _known[1] is not None:
            _known[1].close()
        _known = group, connect()
    return _known[1]


_known: tuple[object, Lines | None] | None = None


def connect() -> Lines | None:
    """Every worker listens, then calls those of lower rank; if one does not reach another, none uses lines."""
    rank, workers = dist.get_rank(), dist.get_world_size()
    with socket.socket(socket.AF_UNIX) as mine, ExitStack() as while_calling:
        path = _listen(mine, workers, while_calling)
        to = _call(_paths(path)[:rank], rank)
        reached = torch.tensor(path is not None and to is not None, dtype=torch.uint8)
        dist.all_reduce(reached, dist.ReduceOp.MIN)
        if not reached:
            _close((to or {}).values())
            return None
        assert to is not None
        return Lines(dict(sorted((to | _answer(mine, workers - rank - 1)).items())), rank)


def _listen(mine: socket.socket, calls: int, while_calling: ExitStack) -> Path | None:
    """Where others may call; None if nowhere: a disk is full, a folder's name too long."""
    try:
        folder = while_calling.enter_context(tempfile.TemporaryDirectory(prefix="llm4seg-"))  # for no other user
        path = Path(folder) / "line"
        mine.bind(str(path))
    except OSError:
        return None
    mine.listen(calls)
    return path


def _paths(mine: Path | None) -> list[str]:
    """Where the workers listen, in the order of their ranks."""
    sent = torch.tensor(list(bytes(mine or Path()).ljust(LONGEST, b"\0")), dtype=torch.uint8)
    everyones_WB = sent.new_empty(dist.get_world_size(), LONGEST)
    dist.all_gather(list(everyones_WB), sent)
    return [os.fsdecode(bytes(path_B.tolist()).rstrip(b"\0")) for path_B in everyones_WB]


def _call(paths: list[str], rank: int) -> dict[int, socket.socket] | None:
    """A line to each, which begins with this worker's rank; None if one is not reached."""
    to: dict[int, socket.socket] = {}
    for other, path in enumerate(paths):
        to[other] = socket.socket(socket.AF_UNIX)
        try:
            to[other].connect(path)
        except OSError:  # another machine's path, or another container's
            _close(to.values())
            return None
        to[other].sendall(rank.to_bytes(4))
    return to


def _answer(mine: socket.socket, calls: int) -> dict[int, socket.socket]:
    """The lines to those who have called."""
    lines = [mine.accept()[0] for _ in range(calls)]
    return {int.from_bytes(line.recv(4, socket.MSG_WAITALL)): line for line in lines}


def _close(lines: Iterable[socket.socket]) -> None:
    for line in lines:
        line.close()
