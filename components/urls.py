"""Addresses of servers, as settings have them."""

from urllib.parse import SplitResult, urlsplit

from dagnn_core.errors import InputError
from dagnn_core.redaction import redact


def split_url(url: str, *, name: str) -> SplitResult:
    """The parts of a server's URL, of which host and port can be read.

    Args:
        url: of the server.
        name: of the setting, for the message.

    Raises:
        InputError: it is no URL, or its port is no number. The message has no part of a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # without its cause, which may show a part of a password
        raise InputError(
            f"{name} is {redact(url)!r}, which has no port from 0 to 65535 or no valid host, expected "
            "http://HOST:PORT or https://HOST",
            f"correct {name}; in a password `@`, `/`, `?` and `#` are written %40, %2F, %3F and %23",
        ) from None
    return parts
