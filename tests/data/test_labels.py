import json

import pytest

from dagnn_core.data.labels import choose_labels, read_label_names, split_labels
from dagnn_core.data.raw import RawItem
from dagnn_core.errors import InputError


def item(split, *labels):
    return RawItem(1, f"{split}-{'-'.join(labels)}", "text", labels, "", split)


@pytest.mark.parametrize(
    ("cells", "separator", "allowed", "expected"),
    [
        (["b | a||b"], "|", set(), ("b", "a")),
        (["a|b"], "", set(), ("a|b",)),
        (["red", "shoe", "red", ""], "", set(), ("red", "shoe")),
        ([("a|b", " c ", "")], "|", set(), ("a|b", "c")),
        (["a|b|c"], "|", {"c", "a"}, ("a", "c")),
        ([""], "|", set(), ()),
    ],
)
def test_labels_of_an_item_are_all_values_of_its_cells(cells, separator, allowed, expected):
    assert split_labels(cells, separator, allowed) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.json", json.dumps(["b", "a"])),
        ("l.json", json.dumps({"columns": ["x"], "labels": [{"name": "b", "column": "x"}, {"name": "a"}]})),
        ("l.txt", "b\n\n a \n"),
    ],
)
def test_label_names_are_read_in_their_order(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_label_names(tmp_path / name) == ("b", "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "does not hold label names"),
        ("{", "does not hold label names"),
        ('{"names": ["a"]}', "does not hold label names"),
        ('{"labels": ["a"]}', "does not hold label names"),
        ('["a", "b", "a"]', "the label 'a' is there twice"),
    ],
)
def test_bad_label_names_are_refused(tmp_path, text, message):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"labels\.json.*{message}"):
        read_label_names(path)
    with pytest.raises(InputError, match="none does not exist, expected a file with the label names"):
        read_label_names(tmp_path / "none")


def test_labels_are_sorted_unless_an_order_is_given():
    items = [item("train", "b", "a", "c")]
    assert choose_labels(items, (), 1).names == ("a", "b", "c")
    assert choose_labels(items, ("c", "a", "b"), 1).names == ("c", "a", "b")


def test_labels_on_no_item_are_dropped_even_when_listed():
    assert choose_labels([item("train", "a", "b")], ("z", "b", "a"), 1) == (("b", "a"), {"z": 0})


def test_rare_labels_are_dropped_by_their_training_count():
    items = [item("train", "a", "b"), item("train", "a", "b", "c"), item("val", "c"), item("test", "c", "d")]
    assert choose_labels(items, (), 2) == (("a", "b"), {"c": 1, "d": 0})


def test_a_label_that_training_never_saw_is_an_error_with_its_count_and_first_item():
    items = [item("train", "a", "b"), item("test", "boat", "a"), item("val", "boat")]
    message = "the label 'boat' is on 2 items of val and test .first: id 'test-boat-a'.*min_label_count to 2"
    with pytest.raises(InputError, match=message):
        choose_labels(items, (), 1)


def test_one_label_is_too_few():
    with pytest.raises(InputError, match=r"1 labels are left \(a\), expected at least two"):
        choose_labels([item("train", "a")], (), 1)
