import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from dagnn_core.config.dataset import FolderConfig
from dagnn_core.data.layouts.folder import open_folder
from dagnn_core.data.raw import Reason
from dagnn_core.errors import InputError

CONFIG = FolderConfig(table="t.csv", images="images")
HEADER = ("id", "text", "labels", "split", "file")


@pytest.fixture
def source(tmp_path):
    """A folder with a table of three items and (empty) files for their images, which nothing decodes here."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (folder / "images" / name).write_bytes(name.encode())
    write_csv(folder / "t.csv", [HEADER, *(row(i) for i in "123")])
    return folder


def row(item_id, text="a boat", labels="boat|water", split="train", file=""):
    return (item_id, text, labels, split, file)


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def rejected(raw):
    return [(rejection.row, rejection.id, rejection.reason) for rejection in raw.rejections]


def test_items_and_images_by_pattern(source):
    raw = open_folder(source, CONFIG)
    assert [item.id for item in raw.items] == ["1", "2", "3"]
    assert raw.items[1] == (2, "2", "a boat", ("boat", "water"), "2.jpg", "", "", True, True)
    assert raw.image(raw.items[1]) == b"2.jpg"
    assert raw.place(2) == "row 2 (line 3)"


def test_images_and_splits_by_column(source):
    write_csv(source / "t.csv", [HEADER, row("a", split="test", file="3.jpg")])
    raw = open_folder(source, replace(CONFIG, image_column="file", split_column="split"))
    assert raw.items[0].split == "test"
    assert raw.image(raw.items[0]) == b"3.jpg"


def test_labels_from_several_columns_that_a_file_allows(source):
    (source / "labels.json").write_text(json.dumps({"labels": [{"name": "train"}, {"name": "boat|water"}]}))
    write_csv(source / "t.csv", [HEADER, row("1"), row("2", labels="other"), row("3", labels="x", split="y")])
    config = replace(CONFIG, label_columns=("labels", "split"), label_separator="", label_names="labels.json")
    raw = open_folder(source, config)
    assert [item.labels for item in raw.items] == [("boat|water", "train"), ("train",)]
    assert raw.label_order == ("train", "boat|water")
    assert rejected(raw) == [(3, "3", Reason.NO_LABEL)]


def test_rows_with_faults_are_rejected_by_their_first_fault(source):
    rows = [row("1"), row(" "), row("1"), row("2", text=" "), row("3", labels=" | "), row("1", labels="")]
    write_csv(source / "t.csv", [HEADER, *rows, row("9", file="../t.csv"), row("8", text="", file="/etc/passwd")])
    raw = open_folder(source, replace(CONFIG, image_column="file"))
    assert [item.row for item in raw.items] == [1]
    assert rejected(raw) == [
        (2, " ", Reason.NO_ID),
        (3, "1", Reason.DUPLICATE_ID),
        (4, "2", Reason.EMPTY_TEXT),
        (5, "3", Reason.NO_LABEL),
        (6, "1", Reason.DUPLICATE_ID),
        (7, "9", Reason.IMAGE_OUTSIDE),
        (8, "8", Reason.EMPTY_TEXT),
    ]


def test_ids_absent_from_the_splits_are_rejected_and_surplus_ones_reported(source, caplog):
    write_csv(source / "s.csv", [("id", "split"), ("1", "train"), ("3", "val"), ("77", "test")])
    raw = open_folder(source, replace(CONFIG, splits="s.csv"))
    assert [(item.id, item.split) for item in raw.items] == [("1", "train"), ("3", "val")]
    assert rejected(raw) == [(2, "2", Reason.NO_SPLIT)]
    assert "1 ids of" in caplog.text
    assert "s.csv are not in" in caplog.text


def test_an_empty_split_cell_is_rejected(source):
    write_csv(source / "t.csv", [HEADER, row("1"), row("2", split="")])
    raw = open_folder(source, replace(CONFIG, split_column="split"))
    assert rejected(raw) == [(2, "2", Reason.NO_SPLIT)]


def test_precomputed_vectors_must_be_there_and_finite(source):
    np.savez(source / "v.npz", ids=["3", "1"], features=np.array([[1, np.nan], [1, 2]], np.float32))
    raw = open_folder(source, replace(CONFIG, images="", image_vectors="v.npz"))
    assert [item.id for item in raw.items] == ["1"]
    assert raw.image is None
    assert rejected(raw) == [(2, "2", Reason.NO_VECTOR), (3, "3", Reason.BAD_VECTOR)]
    np.testing.assert_array_equal(raw.vectors["image"].of(["1"]), [[1, 2]])


def modalities(raw):
    return {item.id: (item.has_image, item.has_text) for item in raw.items}


def test_incomplete_rows_are_items_where_they_are_kept(source):
    write_csv(source / "t.csv", [HEADER, row("1", text=" "), row("2"), row("3", labels="", text="")])
    raw = open_folder(source, CONFIG, keep_incomplete=True)
    assert modalities(raw) == {"1": (True, False), "2": (True, True)}
    assert rejected(raw) == [(3, "3", Reason.NO_LABEL)]


def test_a_modality_without_its_precomputed_vector_is_missing(source):
    np.savez(source / "v.npz", ids=["1", "2"], features=np.array([[1, 2], [1, 2]], np.float32))
    np.savez(source / "w.npz", ids=["1", "3"], features=np.array([[1, 2], [np.nan, 2]], np.float32))
    config = replace(CONFIG, image_vectors="v.npz", text_vectors="w.npz")
    write_csv(source / "t.csv", [HEADER, *(row(i) for i in "1234")])
    raw = open_folder(source, config, keep_incomplete=True)
    assert modalities(raw) == {"1": (True, True), "2": (True, False), "4": (False, False)}
    assert raw.items[1].text == ""
    assert rejected(raw) == [(3, "3", Reason.BAD_VECTOR)]
    raw = open_folder(source, config)
    assert modalities(raw) == {"1": (True, True)}
    assert rejected(raw) == [(2, "2", Reason.NO_VECTOR), (3, "3", Reason.NO_VECTOR), (4, "4", Reason.NO_VECTOR)]


def test_texts_alone_are_read_where_incomplete_items_are_kept(source):
    raw = open_folder(source, replace(CONFIG, images=""), keep_incomplete=True)
    assert raw.is_text_alone
    assert modalities(raw) == dict.fromkeys("123", (False, True))
    assert not open_folder(source, CONFIG).is_text_alone
    np.savez(source / "v.npz", ids=["1"], features=np.ones((1, 2)))
    assert not open_folder(source, replace(CONFIG, images="", image_vectors="v.npz")).is_text_alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "none.csv"}, r"none\.csv does not exist, expected a table"),
        ({"images": "none"}, "none does not exist, expected a folder, an uncompressed tar or a zip"),
        ({"id_column": "idd"}, r"no column 'idd' \(dataset\.folder\.id_column\), did you mean 'id'\?"),
        ({"text_column": "caption"}, r"no column 'caption' \(dataset\.folder\.text_column\); its columns: id, text, l"),
        ({"image_column": "files"}, r"no column 'files' \(dataset\.folder\.image_column\), did you mean 'file'"),
        ({"label_columns": ("labels", "tags")}, r"no column 'tags' \(dataset\.folder\.label_columns\[1\]\)"),
        ({"split_column": "fold"}, r"no column 'fold' \(dataset\.folder\.split_column\)"),
        ({"split_column": "labels"}, r"t\.csv, row 1 \(line 2\): unknown split 'boat\|water', expected one of train"),
        ({"splits": "none.csv"}, r"none\.csv does not exist"),
        ({"splits": "t.csv", "split_column": "split"}, "both split_column and splits, expected one of them"),
        ({"splits": "other.csv"}, r"none of the ids in .*other\.csv \(such as 'x7'\) is in .*t\.csv \(such as '1'\)"),
        ({"image_vectors": "other.npz"}, r"none of the ids in .*other\.npz \(such as 'x7'\) is in .*t\.csv"),
        ({"label_names": "none.json"}, r"none\.json does not exist, expected a file with the label names"),
        (
            {"images": ""},
            r"neither images nor image_vectors, expected at least one.*\(dataset\.incomplete: keep takes texts",
        ),
        ({"image_pattern": "one.jpg"}, r"image_pattern must contain \{id\}, got 'one\.jpg'"),
    ],
)
def test_whole_input_errors_name_file_column_and_key(source, changes, message):
    write_csv(source / "other.csv", [("id", "split"), ("x7", "train")])
    np.savez(source / "other.npz", ids=["x7"], features=np.zeros((1, 2)))
    with pytest.raises(InputError, match=message):
        open_folder(source, replace(CONFIG, **changes))


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none is not a folder, expected the folder with the table 't\.csv'"):
        open_folder(tmp_path / "none", CONFIG)
