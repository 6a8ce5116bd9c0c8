"""Progress of long work: a bar on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], *, description: str, total: int, done: int = 0) -> Iterator[T]:
    """Yield the items while showing how many of `total` are done, `done` of them before these."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total, initial=done, leave=False)
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=done):
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info("%s: %d of %d", description, count, total)
        yield item
