"""A model beside the one that answers: it is asked the same, its answers go to a log of their own, and to nobody."""

import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from components.services.serving.metrics import Metrics
from components.services.serving.queries import Asked
from components.services.serving.service import SearchService
from dagnn_core.errors import DagnnError

log = logging.getLogger(__name__)

MAX_WAITING = 64
"""Requests that wait for the shadow; those that come then are not asked of it."""
NICENESS = 10
"""Of its thread: the answers come first where processors are scarce."""


class ShadowModel:
    """Asks a service what another one was asked, one request after the other, on a thread of its own.

    Args:
        service: the shadow, which has its own log; while its model is not loaded, it is not asked.
        metrics: of the service that answers; they count what becomes of each request.
    """

    def __init__(self, service: SearchService, metrics: Metrics) -> None:
        self._service, self._metrics = service, metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=_yield_to_others)
        self._free = threading.BoundedSemaphore(MAX_WAITING)

    def __call__(self, asked: Sequence[Asked], request: str, is_batch: bool) -> None:
        """Take a request, unless too many wait: this returns at once, and raises nothing."""
        # an embedding of one model means nothing to another
        is_possible = self._service.served_or_none is not None and all(one.kind != "vector" for one in asked)
        if not is_possible or not self._free.acquire(blocking=False):
            self._metrics.shadow.labels("skipped").inc()
            return
        try:
            self._thread.submit(self._ask, asked, request, is_batch)
        except RuntimeError:  # the service is ending
            self._free.release()

    def close(self) -> None:
        """Ask no more; what waits is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ask(self, asked: Sequence[Asked], request: str, is_batch: bool) -> None:
        try:
            self._service.answer(asked, request=request, is_batch=is_batch)
            self._metrics.shadow.labels("answered").inc()
        except Exception as error:  # whatever it is, it is the shadow's own affair
            self._metrics.shadow.labels("failed").inc()
            log.debug("the shadow failed: %s", error, exc_info=None if isinstance(error, DagnnError) else error)
        finally:
            self._free.release()


def log_of_shadow(query_log: Path) -> Path:
    """Where the shadow's answers are logged, beside the log of the answers: `queries.shadow.jsonl`."""
    return query_log.with_name(f"{query_log.stem}.shadow{query_log.suffix}")


def _yield_to_others() -> None:
    with suppress(OSError, AttributeError):  # where threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
