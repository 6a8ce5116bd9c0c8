import json

import pytest

from dagnn_core.data.labels import choose_labels, fold_case, read_label_names, split_labels
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


@pytest.mark.parametrize(
    "names", [("0", "1"), ("1",), ("True", "False"), ("0.0", "1.0"), ("-1", "1"), ("yes", "No"), ("false",)]
)
@pytest.mark.parametrize("min_label_count", [1, 2])
def test_labels_of_only_0_and_1_are_refused_whatever_the_layout(names, min_label_count):
    items = [item(split, name) for name in names for split in ("train", "train", "val", "test")]
    with pytest.raises(InputError, match=r"the labels are only '.*', which name nothing that items share; name one"):
        choose_labels(items, (), min_label_count)


def test_numbers_among_other_labels_are_labels():
    assert choose_labels([item("train", "0", "1", "2")], (), 1).names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (
            ["boat,dog", "dog,sun"],
            r"2 of 2 labels contain ',', such as 'boat,dog': if it separates labels, set",
        ),
        (["boat; dog", "dog; sun"], r"contain ';', .*set label_separator to ';'"),
        (["boat|dog", "dog|sun"], r"contain '\|', .*set label_separator to '\|'"),
        (
            ["[boat dog", "sun]"],
            r"2 of 2 labels have brackets, such as '\[boat dog': if they are lists, write",
        ),
        (["('boat')", "sun", "dog"], r"1 of 3 labels have brackets, such as \"\('boat'\)\""),
    ],
)
def test_errors_about_rare_labels_know_labels_that_were_not_split(labels, hint):
    items = [item("train", *labels[1:]), item("test", labels[0])]
    with pytest.raises(InputError, match=rf"on no training item.*{hint}.*; else set dataset\.min_label_count to 2"):
        choose_labels(items, (), 1)


def test_labels_that_were_not_split_are_warned_of_and_named_where_none_is_left(caplog):
    combined = ["boat,dog", "dog,sun", "sun,boat", "tree"]
    choose_labels([item("train", name) for name in combined], (), 1)
    assert "3 of 4 labels contain ','" in caplog.text
    caplog.clear()
    choose_labels([item("train", name) for name in ("Dogs, large", "Cats, small", "tree", "sun")], (), 1)
    assert caplog.text == "", "no part is in two labels"
    with pytest.raises(InputError, match=r"0 labels are left \(none\), .*contain ','.*; else check the label"):
        choose_labels([item("train", name) for name in combined], (), 2)


def test_labels_that_differ_in_case_alone_are_warned_of(caplog):
    items = [item("train", "boat", "Boat", "SEA", "sea", "dog"), item("train", "boat"), item("train", "BOAT")]
    assert len(choose_labels(items, (), 1).names) == 6
    assert "3 labels differ from another in case alone ('boat' and 'BOAT' and 'Boat', 'SEA' and 'sea')" in caplog.text
    assert "set dataset.label_case to fold" in caplog.text


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((), [("boat", "SEA"), ("boat",), ("boat", "SEA"), ("straße",)]),
        (("Boat", "sea"), [("Boat", "sea"), ("Boat",), ("Boat", "sea"), ("straße",)]),
        (("Boat", "boat"), [("Boat", "SEA"), ("Boat",), ("Boat", "SEA"), ("straße",)]),
    ],
)
def test_case_is_folded_to_the_spelling_of_the_list_or_the_most_frequent(order, expected):
    items = [item("train", "Boat", "sea"), item("train", "boat"), item("test", "boat", "SEA"), item("val", "straße")]
    items.append(item("train", "SEA", "STRASSE", "straße"))
    folded = fold_case(items, order)
    assert folded[4].labels == (expected[0][1], "straße")
    assert [found.labels for found in folded[:4]] == expected


def test_labels_that_look_the_same_are_the_same(tmp_path):
    assert split_labels(["e\u0301t\u00e9|\u00e9te\u0301"], "|", frozenset()) == ("été",)
    (tmp_path / "names.txt").write_text("e\u0301te\u0301\n", encoding="utf-8")
    assert read_label_names(tmp_path / "names.txt") == ("été",)
