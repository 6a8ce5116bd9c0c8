"""Freed memory stays with the process while it trains."""

import json
import platform
import subprocess
import sys

import pytest

# of its own process: what else lies in the memory of this one decides where a block goes
PROGRAM = """
import ctypes, json, resource
from dagnn_core.training.kept_memory import kept_memory

SIZE = 64 << 20  # glibc maps such a block by itself, whatever it has learned
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(SIZE)))
        ctypes.memset(block, 1, SIZE)
        libc.free(block)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / SIZE

found = {"before": faults()}
with kept_memory():
    faults()
    found["while"] = faults()
found["after"] = faults()
print(json.dumps(found))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told")
def test_memory_that_was_freed_is_not_taken_from_the_system_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    blocks = json.loads(done.stdout)
    assert blocks["before"] > 3.5, "without it, each of four blocks is new memory"
    assert blocks["while"] < 0.1
    assert blocks["after"] > 3.5, "afterwards as before"
