"""`in_order`: a function of many items on several threads, with bounded memory.

Threads and not processes, since NumPy, SciPy and hashlib release the interpreter's lock while they work on an array, so
that no volume is copied from one process to another.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import psutil

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The cores that this process may use."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, needed: Callable[[Item], int]
) -> Iterator[Result]:
    """Results of `work`, which must not depend on what runs beside it, in the order of the items.

    Items are read here, at most `workers` ahead of the result that is asked for. `needed`: the bytes that an item takes
    while it is worked on; while fewer are free, it waits until the items before it are done.
    """
    if workers == 1:
        yield from map(work, items)
        return
    pending: deque[tuple[Future[Result], int]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                size = needed(item)
                while pending and (len(pending) >= workers or _free(pending) < size):
                    yield pending.popleft()[0].result()
                pending.append((pool.submit(work, item), size))
                del item  # before the next one is read
            while pending:
                yield pending.popleft()[0].result()
        finally:
            for future, _ in pending:
                future.cancel()


def _free(pending: Iterable[tuple[Future[Result], int]]) -> int:
    """Free memory less what the items at work may still take."""
    available: int = psutil.virtual_memory().available
    return available - sum(size for future, size in pending if not future.done())
