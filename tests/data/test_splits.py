from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.data.formats.table import read_table
from dagnn_core.data.splits import draw_split, read_splits, split_column
from dagnn_core.errors import InputError


def draw(item_id, seed=3, val=0.1, test=0.2):
    return draw_split(item_id, seed=seed, val_fraction=val, test_fraction=test)


def test_fractions_are_met():
    sizes = Counter(draw(str(i)) for i in range(10_000))
    assert sizes["val"] == pytest.approx(1000, abs=150)
    assert sizes["test"] == pytest.approx(2000, abs=200)


def test_splits_are_pinned():
    """A change of the hash would move items between train and test of data sets that exist."""
    expected = ["train", "val", "val", "train", "test", "test", "train", "train", "train", "val", "train", "test"]
    assert [draw(f"item-{i}") for i in range(12)] == expected


def test_another_seed_draws_other_splits():
    assert [draw(str(i), seed=1) for i in range(50)] != [draw(str(i), seed=2) for i in range(50)]


@given(st.text(), st.floats(0.01, 0.4), st.floats(0.01, 0.3))
def test_more_val_takes_from_train_alone(item_id, test, val):
    before, after = draw(item_id, val=val, test=test), draw(item_id, val=val + 0.2, test=test)
    assert before == after or (before, after) == ("train", "val")


def write(path, text):
    path.write_text(text)
    return path


def test_splits_are_read_by_id(tmp_path):
    path = write(tmp_path / "splits.csv", "split,id\ntrain,007\n val ,8\n")
    assert read_splits(path) == {"007": "train", "8": "val"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,split\n1,train\n2,holdout\n",
            r"splits\.csv, row 2 \(line 3\): unknown split 'holdout', expected train",
        ),
        ("id,split\n1,\n", r"row 1 \(line 2\): no split, expected train, validation or test"),
        ("id,split\n1,train\n1,test\n", r"row 2 \(line 3\): the id '1' is there twice"),
        ("id,part\n1,train\n", r"no column 'split' \(split column\)"),
    ],
)
def test_bad_splits_are_named_with_their_row(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_splits(write(tmp_path / "splits.csv", text))


def test_a_column_may_leave_items_out(tmp_path):
    table = read_table(write(tmp_path / "t.csv", "id,split\n1,train\n2,\n"), {"split": "split"})
    assert split_column(table, "split") == ["train", ""]
    words = "id,split\n1,Training\n2,validation\n3,DEV\n4, eval \n5,testing\n"
    table = read_table(write(tmp_path / "w.csv", words), {"split": "split"})
    assert split_column(table, "split") == ["train", "val", "val", "test", "test"]
