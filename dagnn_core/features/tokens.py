"""The words of a text."""

import re

_LETTERS = re.compile(r"[^\W\d_]+")  # word characters without digits and underscore: the letters of all scripts


def tokenize(text: str) -> list[str]:
    """Split a text into its words: lower-cased runs of letters."""
    return _LETTERS.findall(text.lower())
