"""Progress of long work: a bar on a terminal, a log line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from dagnn_core.text import cell

log = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def track(
    items: Iterable[T], *, description: str, total: int, done: int = 0, size: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Yield the items while showing how many of `total` are done, `done` of them before these.

    An item may count for several: its `size`.
    """
    if sys.stderr.isatty():
        with tqdm(desc=cell(description), total=total, initial=done, leave=False) as bar:
            for item in items:
                yield item
                bar.update(size(item))
        return
    last = time.monotonic()
    for item in items:
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info("%s: %d of %d", description, done, total)
        yield item
        done += size(item)
