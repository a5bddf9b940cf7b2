"""Freed memory stays with the process: fewer page faults, up to a limit, and not against the environment."""

import os
import subprocess
import sys

import pytest

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
# The blocks of a step, 20 of 8 MB, are freed together. Prints whether memory is kept, and page faults of ten steps
SCRIPT = """
import ctypes, resource
from llm4seg.utils.allocator import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def step(size, number):
    blocks = [libc.malloc(size) for _ in range(number)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        libc.free(block)

def faults(size, number):
    step(size, number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step(size, number)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory() if {keep} else False
large = faults(2**26, 1)  # first: later it fits into what is kept of the others
print(kept, faults(2**23, 20), large)
"""


def measured(keep: bool, **environment: str) -> tuple[bool, int, int]:
    """Whether memory is kept, and the page faults of ten steps with blocks of 8 MB, and with a block of 64 MB."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", SCRIPT.replace("{keep}", str(keep))]
    ended = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True)
    kept, small, large = ended.stdout.split()
    return kept == "True", int(small), int(large)


@linux
def test_a_steps_memory_is_used_again() -> None:
    pages = 10 * 20 * 2**23 // os.sysconf("SC_PAGE_SIZE")
    kept, small, large = measured(keep=True)
    assert kept
    assert small < pages / 100
    assert measured(keep=False)[1] > pages / 4  # else this machine's allocator keeps memory anyway
    assert large > 1000  # more than 32 MB in one block is returned


@linux
@pytest.mark.parametrize("own", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_"])
def test_the_environments_own_settings_stay(own: str) -> None:
    assert not measured(keep=True, **{own: str(2**20)})[0]
