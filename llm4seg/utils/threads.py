"""`in_order`: a function of many items on several threads, with bounded memory.

NumPy, SciPy and hashlib release the interpreter's lock while they work on an array; where more than that is to be done,
see `utils.processes`.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
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
) -> Generator[Result]:
    """Results of `work`, which must not depend on what runs beside it, in the order of the items.

    Items are read on a thread of their own, one at a time and at most `workers` + 2 ahead of the result that is asked
    for. `needed`: the bytes that an item takes while it is worked on; while fewer are free, it waits until the items
    before it are done.
    """
    if workers == 1:
        yield from map(work, items)
        return
    pending: deque[tuple[Future[Result], int]] = deque()
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(1) as reader:
        iterator = iter(items)
        upcoming = reader.submit(_next, iterator)
        try:
            while read := upcoming.result():
                upcoming = reader.submit(_next, iterator)
                size = needed(read[0])
                while pending and (len(pending) > workers or free_memory(_sizes(pending)) < size):
                    yield pending.popleft()[0].result()
                pending.append((pool.submit(work, read[0]), size))
                del read  # it is not held while others are waited for
            while pending:
                yield pending.popleft()[0].result()
        finally:
            upcoming.cancel()
            for future, _ in pending:
                future.cancel()


def _next(iterator: Iterator[Item]) -> tuple[Item] | None:
    """The next item, in a tuple; None at the end."""
    for item in iterator:
        return (item,)
    return None


def _sizes(pending: Iterable[tuple[Future[Result], int]]) -> list[int]:
    return [size for future, size in pending if not future.done()]


def free_memory(at_work: Iterable[int]) -> int:
    """Bytes of free memory less what the items at work may still take."""
    available: int = psutil.virtual_memory().available
    return available - sum(at_work)
