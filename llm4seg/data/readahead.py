"""What the system reads of a memory-mapped file: the parts that are asked for, and nothing beside them.

Where a page is missing, the system reads what lies around it, too, up to megabytes: around a patch's blocks, which lie
apart, that is most of the volume. Advice changes nothing but that, and is given where the system takes it.
"""

import ctypes
import mmap
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np

TAKEN = hasattr(mmap, "MADV_RANDOM")  # not on Windows


def read_ahead(array: np.ndarray, runs: Iterable[tuple[int, int]]) -> None:
    """Have some runs of a memory-mapped array's bytes, each from its first to its last (not included), read at once.

    What else of the array is read is read page by page.
    """
    if not TAKEN:
        return
    begin = array.__array_interface__["data"][0]
    _advise(begin, begin + array.nbytes, mmap.MADV_RANDOM)
    for first, last in runs:
        _advise(begin + first, begin + last, mmap.MADV_WILLNEED)


def _advise(first: int, last: int, advice: int) -> None:
    start = int(first) - int(first) % mmap.PAGESIZE  # NumPy's numbers are none to ctypes
    # refused where no file is mapped: memory needs no advice
    _madvise()(start, int(last) - start, advice)


@cache
def _madvise() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function  # type: ignore[no-any-return]
