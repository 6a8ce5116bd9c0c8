"""Freed memory stays with the process while it trains."""

import platform
import resource

import pytest
import torch

from dagnn_core.training.kept_memory import kept_memory

NUM_PAGES = (64 << 20) // resource.getpagesize()  # of a tensor that glibc maps by itself, whatever it has learned


def page_faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.empty(64 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told")
def test_memory_that_was_freed_is_not_taken_from_the_system_again() -> None:
    assert page_faults() > 3 * NUM_PAGES, "without it, every tensor is new memory"
    with kept_memory():
        page_faults()
        assert page_faults() < NUM_PAGES / 10
    assert page_faults() > 3 * NUM_PAGES, "afterwards as before"
