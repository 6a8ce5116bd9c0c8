"""Text fit for a message: one line, of bounded length, without credentials."""

import re
from collections.abc import Sequence

MAX_CHARACTERS = 300
"""Of what a server or a library says, in one of our messages."""
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
    return line if len(line) <= limit else line[:limit] + " ..."


def first_line(words: object) -> str:
    """The first line of a message that may fill pages, as those of transformers do; else like `one_line`."""
    return one_line(str(words).strip().partition("\n")[0] or words)


def name_first(names: Sequence[str]) -> str:
    """The first few of many names, for a message, and how many more there are."""
    rest = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")
