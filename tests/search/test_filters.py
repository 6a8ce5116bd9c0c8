import contextlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.errors import InputError
from dagnn_core.search.filters import column_mask, label_mask

NAMES = ("beach", "person", "golden hour", "not", "sea")
LABELS = np.array([[row >> column & 1 for column in range(5)] for row in range(32)], dtype=np.uint8)
HAS = dict(zip(("beach", "person", "golden", "never", "sea"), (LABELS > 0).T, strict=True))


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("beach", "beach"),
        ("beach and not person", "beach & ~person"),
        ("beach or person and sea", "beach | (person & sea)"),
        ("(beach or person) and sea", "(beach | person) & sea"),
        ("not beach and person", "~beach & person"),
        ("not (beach or person)", "~(beach | person)"),
        ("not not sea", "sea"),
        ('"golden hour" and "not"', "golden & never"),
        ('(beach)or("golden hour")', "beach | golden"),
    ],
)
def test_expressions_over_labels(expression, same):
    np.testing.assert_array_equal(label_mask(expression, LABELS, NAMES), eval(same, {}, HAS))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "label filter is empty"),
        ("beech", "no label 'beech'; did you mean 'beach'"),
        ("beach and", "the end where a label is expected"),
        ("and beach", "'and' where a label is expected"),
        ("(beach", "a parenthesis is not closed"),
        ("beach)", r"'\)' is not expected there"),
        ("golden hour", "no label 'golden'; did you mean 'golden hour'"),
        ("beach sea", "'sea' is not expected there"),
        ('"beach', "a quote is not closed"),
        ("(" * 1999, "nests too deeply|label is expected"),
        ("a" * 2001, "2001 characters, expected at most 2000"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(expression, message):
    with pytest.raises(InputError, match=message) as error:
        label_mask(expression, LABELS, NAMES)
    assert "\n" not in str(error.value)


@given(st.text(alphabet='beachs ()"not' + "andor", max_size=60))
def test_any_text_gives_a_mask_or_an_input_error(text):
    with contextlib.suppress(InputError):
        assert label_mask(text, LABELS, NAMES).shape == (32,)


def test_columns_are_compared_as_texts():
    columns = {"year": pa.chunked_array([[2019, None, 2020]]), "place": pa.chunked_array([["Rome", "a=b", None]])}
    assert column_mask(["year=2020"], columns, 3).tolist() == [False, False, True]
    assert column_mask(["place=a=b"], columns, 3).tolist() == [False, True, False]
    assert column_mask(["year=2019", "place=Rome"], columns, 3).tolist() == [True, False, False]
    assert column_mask([], columns, 3).all()
    with pytest.raises(InputError, match="no column 'yeer'; did you mean 'year'"):
        column_mask(["yeer=1"], columns, 3)
    with pytest.raises(InputError, match="has no '=', expected column=value"):
        column_mask(["year"], columns, 3)
