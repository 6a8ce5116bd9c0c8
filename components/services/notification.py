"""Notification: a webhook is told of promotions, refusals, rollbacks and failed runs, and holds nothing up.

The environment sets it: DAGNN_WEBHOOK_URL, DAGNN_WEBHOOK_FORMAT (`plain`, by default, or `slack`), and
DAGNN_WEBHOOK_SECRET, with which each message is signed. The address is a secret as well: anybody who knows it can write
there. What goes wrong is one warning.
"""

import hashlib
import hmac
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args
from uuid import uuid4

import requests

from components.services.storage.patience import Patience, passing_failure, passing_status
from dagnn_core.errors import CheckFailedError, InputError
from dagnn_core.locks import BusyError
from dagnn_core.redaction import redact, redact_all

log = logging.getLogger(__name__)

Format = Literal["plain", "slack"]
Kind = Literal["promoted", "refused", "rolled back", "run ended", "run failed"]

SECONDS = 4.0
"""For which a server may be silent."""
RETRY_SECONDS = 3.0
"""For which a server that fails is asked again, where no patience is set."""
TIMESTAMP, SIGNATURE, DELIVERY = "X-Dagnn-Timestamp", "X-Dagnn-Signature", "X-Dagnn-Delivery"
"""Headers: Unix seconds; `sha256=` and the HMAC of `TIMESTAMP.BODY`; an id, the same at each attempt."""

_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # what Slack takes for links and names


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What has happened."""

    kind: Kind
    text: str
    """For readers, on one line."""
    facts: Mapping[str, str | None] = field(default_factory=dict)
    """For programs: further keys of the JSON object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """Where events go."""

    url: str
    secret: str = ""
    """Signs each message; empty: none is signed."""
    format: Format = "plain"
    patience: float = 0.0
    """Seconds to wait for a server that fails; 0: `RETRY_SECONDS`, without a line about each attempt."""

    @classmethod
    def from_environment(cls, *, patience: float = 0.0) -> "Webhook | None":
        """The webhook that the variables DAGNN_WEBHOOK_... set; None where there is none.

        Raises:
            InputError: there is no such format.
        """
        url = os.environ.get("DAGNN_WEBHOOK_URL")
        if not url:
            return None
        chosen = os.environ.get("DAGNN_WEBHOOK_FORMAT") or "plain"
        for known in get_args(Format):
            if chosen == known:
                secret = os.environ.get("DAGNN_WEBHOOK_SECRET", "")
                return cls(url=url, secret=secret, format=known, patience=patience)
        raise InputError(
            f"DAGNN_WEBHOOK_FORMAT is {chosen!r}, expected {' or '.join(get_args(Format))}", "correct or unset it"
        )


def notify(webhook: Webhook | None, event: Event) -> None:
    """Tell a webhook of an event; whatever it does, this returns soon, and a failure is one warning.

    Args:
        webhook: where to; None: nowhere.
        event: what has happened.
    """
    if webhook is None:
        return
    failures: list[str] = []
    # on a thread: a server that sends a byte now and then would keep a request for as long as it likes
    thread = threading.Thread(target=lambda: failures.extend(_send(webhook, event)), daemon=True)
    thread.start()
    seconds = (webhook.patience or RETRY_SECONDS) + 3 * SECONDS  # the last attempt may hang, too
    thread.join(seconds)
    if thread.is_alive():
        failures.append(f"does not answer within {seconds:g} s")
    for failure in failures:
        log.warning("the webhook %s", failure)


@contextmanager
def failure_notified(webhook: Webhook | None, what: str) -> Iterator[None]:
    """Tell a webhook of a failure in the body, or of a check that says no; a lock that is held is neither.

    Args:
        webhook: where to; None: nowhere.
        what: the run, for readers.
    """
    try:
        yield
    except BusyError:
        raise
    except Exception as error:
        is_refusal = isinstance(error, CheckFailedError)
        kind: Kind = "refused" if is_refusal else "run failed"
        text = f"dagnn: {what} {'is refused' if is_refusal else 'failed'}: {error}"
        notify(webhook, Event(kind=kind, text=text, facts={"run": what, "reason": str(error)}))
        raise


def _body(webhook: Webhook, event: Event) -> bytes:
    text = " ".join(redact(event.text).split())
    if webhook.format == "slack":
        return json.dumps({"text": text.translate(_ESCAPED)}).encode()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"event": event.kind, "time": now, "text": text, **redact_all(event.facts)}).encode()


def _send(webhook: Webhook, event: Event) -> list[str]:
    """Post an event; return what failed, without the address, which the error's own words may hold."""
    body, delivery = _body(webhook, event), uuid4().hex

    def attempt() -> requests.Response:
        headers = {"Content-Type": "application/json", DELIVERY: delivery}
        if webhook.secret:
            headers |= sign(webhook.secret, body, timestamp=int(time.time()))
        # a redirection would take the message to somebody else
        answer = requests.post(webhook.url, data=body, headers=headers, timeout=SECONDS, allow_redirects=False)
        if passing_status(answer.status_code):
            raise requests.HTTPError(response=answer)
        return answer

    waiting = Patience("the webhook", webhook.patience) if webhook.patience else _Silent("", RETRY_SECONDS)
    try:
        answer = waiting.call(attempt, _passing_failure)
    except requests.HTTPError as error:
        return [f"answers {error.response.status_code}"]
    except (requests.RequestException, ValueError) as error:
        return [f"cannot be reached ({type(error).__name__})"]
    return [] if answer.status_code < 300 else [f"answers {answer.status_code}"]


def sign(secret: str, body: bytes, *, timestamp: int) -> dict[str, str]:
    """The headers that let a receiver know the sender, and refuse a message that is repeated later.

    Args:
        secret: known to both.
        body: of the request.
        timestamp: seconds since 1970.
    """
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {TIMESTAMP: str(timestamp), SIGNATURE: f"sha256={digest}"}


class _Silent(Patience):
    """Says nothing of an attempt: one line tells how it ended."""

    def say(self, pause: float, text: str) -> None:
        """Say nothing."""


def _passing_failure(error: BaseException) -> str | None:
    """What has failed, where that may pass, without the address that the error's own words may hold."""
    failure = passing_failure(error)
    return type(error).__name__ if failure and not isinstance(error, requests.HTTPError) else failure
