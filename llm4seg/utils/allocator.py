"""glibc's memory allocator, for a process that computes on the CPU."""

import ctypes
import logging
import os

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
OPTIONS = {
    M_TRIM_THRESHOLD: (2**30, "MALLOC_TRIM_THRESHOLD_"),
    M_TOP_PAD: (2**26, "MALLOC_TOP_PAD_"),
    M_MMAP_THRESHOLD: (2**25, "MALLOC_MMAP_THRESHOLD_"),  # the largest that glibc allows
}


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GB of freed memory for its next tensors; returns whether it is so.

    Else each training step gives the memory of its activations back and gets it anew, page by page, zeroed. Larger
    tensors, of more than 32 MB, are still returned at once unless they fit into what is kept. Results do not change.
    Does nothing where the C library is not glibc, as musl and macOS's are not, or where the environment configures
    glibc's allocator.
    """
    if not _is_glibc() or "GLIBC_TUNABLES" in os.environ or any(name in os.environ for _, name in OPTIONS.values()):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    kept = [mallopt(option, value) == 1 for option, (value, _) in OPTIONS.items()]
    log.debug("freed memory is kept for later tensors: %s", kept)
    return all(kept)


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError, AttributeError):  # the name is unknown there; Windows has no confstr
        return False
