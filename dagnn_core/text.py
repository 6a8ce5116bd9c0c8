"""Text fit for a message: one line, of bounded length, without secrets, and without what controls a terminal."""

import json
import re
from collections.abc import Sequence

from dagnn_core.redaction import redact

MAX_CHARACTERS = 300
"""Of what a server or a library says, in one of our messages."""
MAX_QUOTED = 80
"""Characters of a value from the user's data, in a message: an id, a text, a label, a cell, a column."""
MAX_NAMED = 120
NUM_NAMED = 3
# C0 and C1 controls but line end and tab; what has no width, or turns the direction of writing; separators of lines and
# paragraphs; halves of characters; tags
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""A text that a terminal shows as it is: what would control it is written as in JSON, `\u001b`.

    Line ends and tabs stay. JSON stays the same JSON.
    """
    return _CONTROL.sub(_escape, text)


def cell(text: object) -> str:
    r"""A text as one cell of a table, or one part of a line: `printable`, and line ends and tabs are `\n` and `\t`."""
    return printable(str(text).replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t"))


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if ord(character) < 1 << 16:
        return f"\\u{ord(character):04x}"
    return json.dumps(character)[1:-1]


def one_line(words: object, limit: int = MAX_CHARACTERS) -> str:
    """What an error, a server or a log says, on one line and without secrets.

    Args:
        words: the text, or an exception; one without a message is named by its class.
        limit: characters that are kept; `...` stands for the others.
    """
    said = str(words) or (type(words).__name__ if isinstance(words, BaseException) else "")
    line = " ".join(redact(said).split())
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
