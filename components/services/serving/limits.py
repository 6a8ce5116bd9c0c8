"""What the service takes, so that no client can use up its memory or its time."""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dagnn_core.errors import DagnnError

MAX_CLIENTS = 10_000
"""Clients whose rates are remembered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one request, one client and all of them may ask for."""

    body_bytes: int = 16 << 20
    body_seconds: float = 20.0
    """Until all of a body, or of the head of a first request, has come."""
    image_pixels: int = 50_000_000
    k: int = 200
    batch: int = 64
    text_characters: int = 2_000
    queue: int = 64
    """Requests that wait or run; each may hold a body."""
    rate: float = 50.0
    """Queries a second of one client; 0: any."""
    connections: int = 1_000


class RequestError(DagnnError):
    """A request that is refused.

    Args:
        status: the HTTP status.
        what: what was wrong.
        remedy: what the client can do about it.
        reason: one word for the metrics.
        retry_after: seconds until it is worth another attempt; 0: do not say.
    """

    def __init__(
        self, status: int, what: str, remedy: str = "", *, reason: str = "query", retry_after: int = 0
    ) -> None:
        super().__init__(what, remedy)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Rates:
    """A token bucket for each client: `rate` queries a second, and twice as many at once after a pause.

    Args:
        rate: queries a second; 0: any number.
        clock: seconds, never going back.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, max(1.0, 2 * rate), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def spend(self, client: str) -> None:
        """Count a query of a client.

        Raises:
            RequestError: it has none left (429).
        """
        if not self._rate:
            return
        with self._lock:
            left = self._left(client)
            is_allowed = left >= 1
            self._keep(client, left - 1 if is_allowed else left)
        if not is_allowed:
            raise RequestError(
                429,
                f"more than {self._rate:g} queries a second",
                "ask more slowly",
                reason="rate",
                retry_after=max(1, round((1 - left) / self._rate)),
            )

    def charge(self, client: str, queries: int) -> None:
        """Count more queries of a request that was let in, which may leave its client in debt."""
        if self._rate:
            with self._lock:
                self._keep(client, self._left(client) - queries)

    def _left(self, client: str) -> float:
        now = self._clock()
        left, then = self._buckets.get(client, (self._burst, now))
        return min(self._burst, left + (now - then) * self._rate)

    def _keep(self, client: str, left: float) -> None:
        self._buckets[client] = (left, self._clock())
        self._buckets.move_to_end(client)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)


def client_of(address: str) -> str:
    """The client of an address: itself, or its network of 64 bits in IPv6, all of which one machine may have."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address
