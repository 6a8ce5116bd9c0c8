"""Memory that a training gives back and takes again at once stays with the process, where glibc has a say.

A step frees and allocates several times the size of the weights. By default glibc returns large blocks to the system,
which hands them out again page by page and zeroed: at batches of 100 that takes as long as many of the products.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of malloc.h
_USUAL = {  # what glibc comes to by itself in a process that has freed large blocks
    _M_MMAP_MAX: 65536,
    _M_MMAP_THRESHOLD: 32 << 20,
    _M_TRIM_THRESHOLD: 64 << 20,
}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for the next allocation while the body runs; nothing changes without glibc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        for option, value in _USUAL.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
