"""How long a backend that does not answer is asked again, and after which failures: S3, MLflow and the webhook.

Kubeflow starts a lost pod again, but not a step that has ended with an exit status. So on a cluster a step itself waits
for a backend that restarts, as long as DAGNN_BACKEND_PATIENCE says. Without that variable, on a user's machine, nothing
here waits: the user wants the error.
"""

import logging
import math
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, TypeVar

from dagnn_core.errors import InputError, causes
from dagnn_core.text import one_line

log = logging.getLogger(__name__)

ENVIRONMENT = "DAGNN_BACKEND_PATIENCE"
FIRST_PAUSE = 1.0  # seconds; doubles from attempt to attempt
LONGEST_PAUSE = 30.0
MAX_WORDS = 200  # characters of a failure in a progress line

_PASSING_REFUSALS = {408, 429}  # request time-out, too many requests
_LASTING_FAULTS = {501, 505}  # the server lacks a function, and will lack it later too

T = TypeVar("T")
PassingFailure = Callable[[BaseException], str | None]
"""Says in a few words what has failed, where that may pass by itself; None: another attempt would fail as well."""


def patience_of_environment() -> float:
    """Seconds to wait for a backend, as DAGNN_BACKEND_PATIENCE says; by default 0.

    Raises:
        InputError: the variable is no number of seconds.
    """
    text = os.environ.get(ENVIRONMENT) or "0"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{ENVIRONMENT} must be a number of seconds >= 0, got {text!r}", "correct or unset it")
    return seconds


class Patience:
    """The patience with one backend; safe to use from several threads.

    Once it has ended, a failure is final until the backend has answered again.

    Args:
        backend: the backend's name, without credentials, for the progress lines.
        seconds: time from a first failure to the last attempt; 0: the first failure is final.
    """

    def __init__(self, backend: str, seconds: float) -> None:
        self.backend = backend
        self.seconds = seconds
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._next_line = -math.inf
        self._has_ended = False

    def call(self, attempt: Callable[[], T], passing: PassingFailure) -> T:
        """Call `attempt` until it returns, fails in a way that does not pass, or patience is at its end.

        `attempt` must be fit to be repeated as a whole. Calls inside it do not wait themselves.

        Raises:
            BaseException: what the last attempt raised.
        """
        if getattr(self._thread, "is_calling", False):
            return attempt()
        outage = Outage(self)
        self._thread.is_calling = True
        try:
            while True:
                try:
                    done = attempt()
                except Exception as error:
                    pause = outage.pause(passing(error))
                    if pause is None:
                        raise
                else:
                    self.note_answer()
                    return done
                time.sleep(pause)
        finally:
            self._thread.is_calling = False

    def make_once(self, find: Callable[[], T | None], make: Callable[[], T], passing: PassingFailure) -> T:
        """Make what has no name of its own: after a failed attempt, `find` tells whether it was made all the same.

        Args:
            find: returns what an earlier attempt has made; None for nothing.
            make: makes it.
            passing: tells passing failures from others.
        """
        attempts = count()
        return self.call(lambda: (find() if next(attempts) else None) or make(), passing)

    def of(self, target: T, passing: PassingFailure) -> T:
        """The same object, whose methods wait for the backend."""
        return _Patient(target, partial(self._call_method, passing)) if self.seconds else target  # type: ignore[return-value]

    def _call_method(self, passing: PassingFailure, method: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        return self.call(lambda: method(*args, **kwargs), passing)

    @property
    def left(self) -> float:
        """Seconds to wait for a backend that begins to fail."""
        return 0 if self._has_ended else self.seconds

    def note_answer(self) -> None:
        """The backend has answered."""
        self._has_ended = False

    def note_end(self, failure: str) -> None:
        """The backend has not answered in all the time that it had."""
        self._has_ended = True
        self.say(LONGEST_PAUSE, f"is still not available ({failure}) after {_duration(self.seconds)}; giving up")

    def say(self, pause: float, text: str) -> None:
        """Log a line about an attempt; of several threads that wait at once, one does so."""
        with self._lock:
            now = time.monotonic()
            if now < self._next_line:
                return
            self._next_line = now + pause
        log.warning("%s %s", self.backend, text)


class Outage:
    """The time in which one request fails again and again; it begins with the first failure."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._attempts = 0
        self._end = 0.0

    def pause(self, failure: str | None) -> float | None:
        """Seconds to wait before the next attempt, after one line about it; None when there shall be none.

        Args:
            failure: what has failed, in a few words; None: the backend has answered.
        """
        if failure is None:
            self._patience.note_answer()
            return None
        now = time.monotonic()
        if not self._attempts:
            self._end = now + self._patience.left
        left = self._end - now
        if left <= 0:
            if self._attempts:
                self._patience.note_end(failure)
            return None
        longest = min(FIRST_PAUSE * 2**self._attempts, LONGEST_PAUSE)
        # jitter, so that many tasks do not come back at once; the last attempt is made at the very end
        pause: float = min(longest * random.uniform(0.5, 1.0), left)  # noqa: S311
        self._attempts += 1
        until = datetime.now().astimezone() + timedelta(seconds=left)
        text = f"is not available ({failure}); trying again for another {_duration(left)}, until {until:%H:%M:%S}"
        self._patience.say(pause, text)
        return pause


class _Patient:
    """An object whose methods are called with patience."""

    def __init__(self, target: object, call: Callable[..., Any]) -> None:
        self._target = target
        self._call = call

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return partial(self._call, found) if callable(found) else found


def passing_status(status: int) -> str | None:
    """Say what an HTTP status means where it may pass: 408, 429, and 5xx but for 501 and 505."""
    may_pass = status in _PASSING_REFUSALS or (status >= 500 and status not in _LASTING_FAULTS)
    return f"it answers {status}" if may_pass else None


def passing_failure(error: BaseException) -> str | None:
    """Say what has failed where that may pass: no or a broken connection, no host, a time-out, a passing status.

    An error is judged with all that it was raised from.
    """
    from requests import exceptions as of_requests
    from urllib3 import exceptions as of_urllib3

    types = (
        *(ConnectionError, TimeoutError, socket.gaierror),
        *(of_requests.ConnectionError, of_requests.Timeout, of_requests.ChunkedEncodingError),
        *(of_urllib3.ProtocolError, of_urllib3.TimeoutError, of_urllib3.NewConnectionError),
    )
    links = list(causes(error))
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in links):
        return None
    for link in links:
        status = _status(link)
        if status is not None:
            return passing_status(status)
        if isinstance(link, types):
            return _words(links[-1])
    return None


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of botocore or requests is about."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return int(found) if found else None
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _words(root: BaseException) -> str:
    words = (root.strerror if isinstance(root, OSError) else None) or str(root) or type(root).__name__
    return one_line(words, MAX_WORDS)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    return " ".join(part for part in (f"{minutes} min" if minutes else "", f"{rest} s" if rest else "") if part)
