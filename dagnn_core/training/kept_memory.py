"""Memory that a training gives back and takes again at once stays with the process, where glibc has a say.

A step frees and allocates several times the size of the weights. By default glibc returns large blocks to the system,
which hands them out again page by page and zeroed: at batches of 100 that takes longer than some of the products.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_NEVER = -1
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 << 10, 65536


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the next allocation while the body runs; nothing changes without glibc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
        libc.malloc_trim(0)
