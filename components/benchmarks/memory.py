"""The highest memory of this process, watched from a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_BETWEEN_SAMPLES = 0.05


@contextmanager
def peak_of(counter: str) -> Iterator[Callable[[], int]]:
    """By how much a counter of this process's memory rises while the body runs, at its highest, in bytes.

    Args:
        counter: of Linux's /proc/self/status: `VmRSS`; without the page cache: `RssAnon`.
    """
    before = highest = _memory(counter)
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(SECONDS_BETWEEN_SAMPLES):
            highest = max(highest, _memory(counter))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: highest - before
    finally:
        over.set()
        watcher.join()
        highest = max(highest, _memory(counter))


def _memory(counter: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{counter}:"))
