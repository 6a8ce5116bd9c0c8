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
        raise no_url(url, name=name) from None  # its words may have a part of a password
    return parts


def no_url(url: str, *, name: str) -> InputError:
    """The error about a setting that is no URL of a server.

    Args:
        url: what was given.
        name: of the setting.
    """
    return InputError(
        f"{name} is {redact(url)!r}, whose host and port cannot be read, expected an address as "
        "http://localhost:5000, with a port from 0 to 65535",
        f"correct {name}; in a password, write %40 for `@`, %2F for `/`, %3F for `?`, %23 for `#`",
    )
