"""Lines for messages: folded, cut, and without credentials."""

import pytest

from dagnn_core.errors import causes
from dagnn_core.text import clip, first_line, name_first, one_line, quote, without_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:secret@host/path", "https://host/path"),
        ("https://token@host", "https://host"),
        ("postgresql+psycopg2://me:p@ss:word@host:5432/db", "postgresql+psycopg2://host:5432/db"),
        ("two: https://a:b@one and ssh://git@two/x", "two: https://one and ssh://two/x"),
        ("https://host/path?mail=a@b", "https://host/path?mail=a@b"),
        ('{"url":"https://host","mail":"a@b"}', '{"url":"https://host","mail":"a@b"}'),
        ("git@host:path", "git@host:path"),  # the name of an account, and no password
        ("data/raw@2", "data/raw@2"),
    ],
)
def test_addresses_lose_user_and_password(text: str, expected: str) -> None:
    assert without_credentials(text) == expected


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
