"""Text fit for a message: one line, of bounded length, without credentials."""

import re
from collections.abc import Sequence

MAX_CHARACTERS = 300
"""Of what a server or a library says, in one of our messages."""
MAX_QUOTED = 80
"""Characters of a value from the user's data, in a message: an id, a text, a label, a cell, a column."""
MAX_NAMED = 120
NUM_NAMED = 3
_USER_INFO = re.compile(r"""://[^/?#\s"'<>]+@""")


def without_credentials(text: str) -> str:
    """A text, fit to be shown and recorded: its addresses have no user and password."""
    return _USER_INFO.sub("://", text)


def one_line(words: object, limit: int = MAX_CHARACTERS) -> str:
    """What an error, a server or a log says, on one line and without credentials.

    Args:
        words: the text, or an exception; one without a message is named by its class.
        limit: characters that are kept; `...` stands for the others.
    """
    said = str(words) or (type(words).__name__ if isinstance(words, BaseException) else "")
    line = " ".join(without_credentials(said).split())
    return clip(line, limit)


def clip(text: str, limit: int = MAX_QUOTED) -> str:
    """The first characters of a text that may be of any length; ` ...` stands for the others."""
    return text if len(text) <= limit else text[:limit] + " ..."


def quote(value: object, limit: int = MAX_QUOTED) -> str:
    """A value from the user's data for a message: like `repr`, so on one line, and of bounded length.

    Args:
        value: a text is cut before it is quoted, so that one of gigabytes costs nothing.
        limit: characters of the value that are kept.
    """
    if not isinstance(value, str | bytes):
        return clip(repr(value), limit)
    return repr(value) if len(value) <= limit else repr(value[:limit]) + " ..."


def first_line(words: object) -> str:
    """The first line of a message that may fill pages, as those of transformers do; else like `one_line`."""
    return one_line(str(words).strip().partition("\n")[0] or words)


def name_first(names: Sequence[str]) -> str:
    """The first few of many names, for a message, and how many more there are."""
    rest = len(names) - NUM_NAMED
    return ", ".join(clip(name, MAX_NAMED) for name in names[:NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")
