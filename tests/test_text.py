"""Lines for messages: folded, cut, and without what controls a terminal."""

import json
import unicodedata

import pytest

from dagnn_core.errors import causes
from dagnn_core.text import cell, clip, first_line, name_first, one_line, printable, quote


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\n\tlines, é 日本 🙂", "two\n\tlines, é 日本 🙂"),
        ("\x1b[31mred\x1b]0;title\x07", r"\u001b[31mred\u001b]0;title\u0007"),
        ("back\rspace\b\x7f", r"back\u000dspace\u0008\u007f"),
        ("c1 \x9b31m \x85", r"c1 \u009b31m \u0085"),
        ("\u202egpj.exe\u2066\u200f\u061c", r"\u202egpj.exe\u2066\u200f\u061c"),
        ("ca\u200bt\u200d\ufeff\u2060\xad", r"ca\u200bt\u200d\ufeff\u2060\u00ad"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("half \udc80 \ud83d", r"half \udc80 \ud83d"),
        ("tag \U000e0041", r"tag \udb40\udc41"),
    ],
)
def test_what_controls_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert cell(text) == shown.replace("\n", r"\n").replace("\t", r"\t").replace(r"\u000d", r"\r")
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text


def test_every_format_character_is_escaped_but_those_that_are_seen() -> None:
    seen = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
    for character in map(chr, range(0x110000)):
        is_control = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        if is_control and character not in "\n\t" + seen and not "\U00013430" <= character <= "\U0001343f":
            assert character not in printable(character), hex(ord(character))


def test_one_line_folds_and_cuts() -> None:
    assert one_line(" a\n\n  b\t c ") == "a b c"
    assert one_line("x" * 11, limit=10) == "x" * 10 + " ..."
    assert one_line("x" * 10, limit=10) == "x" * 10
    assert one_line("cannot reach\nhttps://me:secret@host") == "cannot reach https://host"


def test_an_error_without_words_is_named() -> None:
    assert one_line(TimeoutError()) == "TimeoutError"
    assert first_line(TimeoutError("\n one \n two")) == "one"
    assert first_line(TimeoutError()) == "TimeoutError"
    assert one_line("") == first_line("") == ""


def test_the_first_of_many_names() -> None:
    assert name_first(["a", "b", "c"]) == "a, b, c"
    assert name_first(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_values_from_data_are_quoted_and_cut() -> None:
    assert quote("a\nb") == r"'a\nb'"
    assert quote("x" * 80) == "'" + "x" * 80 + "'"
    assert quote("x" * 50_000_000) == "'" + "x" * 80 + "' ..."
    assert quote(b"x" * 81, limit=3) == "b'xxx' ..."
    assert quote(["x" * 100]) == "['" + "x" * 78 + " ..."
    assert quote(float("nan")) == "nan" and clip("abc", 2) == "ab ..."
    assert len(name_first(["x" * 10**6] * 9)) < 400


def test_causes_lead_to_the_root() -> None:
    root, middle, top = OSError("root"), ValueError("middle"), KeyError("top")
    top.__cause__, middle.__context__ = middle, root
    assert list(causes(top)) == [top, middle, root]
