import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.data.formats.cells import parse_list, read_lists, without_missing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['boat', 'tree']", ("boat", "tree")),
        ('["a, b","c\\u00e9", ""]', ("a, b", "cé", "")),
        ("['boat' 'tree'\n 'dog']", ("boat", "tree", "dog")),  # NumPy, which Python would read as one text
        ("('x',)", ("x",)),
        ("{'x', \"it's\"}", ("x", "it's")),
        (" ['a]b', 'c'] ", ("a]b", "c")),
        (r"['it\'s', 'b']", ("it's", "b")),
        ("['a', nan, None, null]", ("a", "", "", "")),
        ("[]", ()),
        ("[boat]|[tree]", None),
        ("['a'", None),
        ("['a']b]", None),
        ("[['a'], ['b']]", None),
        ('{"a": 1}', None),
        (r"['\x']", None),
        ("boat", None),
        ("[deleted]", None),
        ("[1, 0]", None),
    ],
)
def test_lists_with_quotes_are_lists_wherever_they_are(text, expected):
    assert parse_list(text, allow_bare=False) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[boat, fire truck]", ("boat", "fire truck")),
        ("{boat,tree}", ("boat", "tree")),
        ("[0 1 0]", ("0", "1", "0")),
        ("[1., 0.]", ("1.", "0.")),
        ("[kid's toy, b]", ("kid's toy", "b")),
        ("[a,,b]", None),
        ("[[1, 2], [3]]", None),
    ],
)
def test_brackets_without_quotes_are_lists_where_asked_for(text, expected):
    assert parse_list(text, allow_bare=True) == expected


@given(st.lists(st.text(), max_size=4))
def test_any_list_of_texts_comes_back_as_python_writes_it(entries):
    assert parse_list(str(entries), allow_bare=False) == tuple(entries)


def test_brackets_without_quotes_are_lists_where_the_whole_column_has_them():
    assert read_lists(["[a, b]", "", "[c]"], allow_bare=True) == ([("a", "b"), "", ("c",)], 2)
    assert read_lists(["[deleted]", "boat"], allow_bare=True) == (["[deleted]", "boat"], 0)
    assert read_lists(["[a]", "[b]"], allow_bare=False) == (["[a]", "[b]"], 0)
    assert read_lists(["['a']", "boat", ("x",)], allow_bare=True) == ([("a",), "boat", ("x",)], 1)


def test_what_pandas_writes_for_a_missing_value_is_missing():
    cells = ["nan", " NaN ", "<NA>", "nano", "Nan", ("a", "nan", "b"), ("c",)]
    assert without_missing(cells) == (["", "", "", "nano", "Nan", ("a", "", "b"), ("c",)], 4)
