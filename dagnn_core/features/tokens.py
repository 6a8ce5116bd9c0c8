"""The words of a text."""

import re
import unicodedata
from functools import cache
from typing import Literal

Rule = Literal["letters", "unicode"]
"""How texts become words. `unicode`, of all that is new: lower-cased runs of letters with the marks on them, as UAX #29
keeps them together, in the composed form (NFC). `letters`, of encoders stored before: runs of letters alone, which cuts
Hindi at each vowel sign. Texts in ASCII have the same words by both."""

_LETTERS = re.compile(r"[^\W\d_]+")  # word characters without digits and underscore: the letters of all scripts
_JOINERS = "\u200c\u200d"  # inside words of Persian and of Indic scripts they belong to the spelling
_INVISIBLE = "\u00ad\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef"
"""Hyphenation, direction and variants of glyphs: they part no word and are no part of its spelling."""
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese."""


def tokenize(text: str, rule: Rule = "unicode") -> list[str]:
    """Split a text into its words.

    Args:
        text: any.
        rule: `letters` for an encoder whose vocabulary was made so.
    """
    if text.isascii() or rule == "letters":
        return _LETTERS.findall(text.lower())
    invisible, words = _patterns()
    return words.findall(unicodedata.normalize("NFC", invisible.sub("", text.lower())))


def is_unspaced(text: str) -> bool:
    """Whether most letters of a text are of scripts that put no spaces between words, so that no rule here cuts it."""
    num_letters = sum(map(len, _LETTERS.findall(text)))
    return 2 * len(_UNSPACED.findall(text)) > num_letters


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What is left out of texts, and what a word is; made when needed, since it looks at all characters."""
    planes = (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))  # no marks elsewhere
    marks = "".join(chr(code) for code in planes if unicodedata.category(chr(code)).startswith("M"))
    letter = r"[^\W\d_]"
    return re.compile(f"[{_INVISIBLE}]"), re.compile(f"{letter}(?:{letter}|[{marks}]|[{_JOINERS}]+(?={letter}))*")
