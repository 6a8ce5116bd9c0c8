import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
    assert raw.items[1] == (2, "2", "a boat", ("boat", "water"), "2.jpg", "", "", True, True, (), {})
    assert raw.image(raw.items[1]) == b"2.jpg"
    assert raw.place(2) == "row 2 (line 3)"


def test_images_and_splits_by_column(source):
    write_csv(source / "t.csv", [HEADER, row("a", split="test", file="3.jpg")])
    raw = open_folder(source, replace(CONFIG, image_column="file", split_column="split"))
    assert raw.items[0].split == "test"
    assert raw.image(raw.items[0]) == b"3.jpg"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_columns_are_kept_as_texts(source, suffix):
    columns = {"year": [2019, 2020, 2019], "f. stop": [1.5, 2.8, 0.95], "Gerät": [" große Kamera ", "夜", None]}
    cells = {"id": ["1", "2", "3"], "text": ["a boat"] * 3, "labels": ["boat"] * 3, **columns}
    table = pa.table(cells)
    path = (source / "t").with_suffix(suffix)
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".csv":
        write_csv(path, [cells, *zip(*cells.values(), strict=True)])
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    raw = open_folder(source, replace(CONFIG, table=path.name, keep_columns=("Gerät", "year", "f. stop")))
    assert raw.columns == ("Gerät", "year", "f. stop")
    assert [item.columns for item in raw.items] == [
        {"Gerät": "große Kamera", "year": "2019", "f. stop": "1.5"},
        {"Gerät": "夜", "year": "2020", "f. stop": "2.8"},
        {"Gerät": "", "year": "2019", "f. stop": "0.95"},
    ]
    assert list(raw.items[0].columns) == list(raw.columns)


def test_a_list_in_a_kept_column_is_refused_by_its_row(source):
    rows = [{"id": name, "text": "a", "labels": "boat", "tags": tags} for name, tags in (("1", "x"), ("2", ["x", "y"]))]
    (source / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"t\.jsonl, row 2 \(line 2\): column 'tags' holds a list, expected one text"):
        open_folder(source, replace(CONFIG, table="t.jsonl", keep_columns=("tags",)))


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
        (2, "", Reason.NO_ID),
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
        (
            {"keep_columns": ("file", "camera")},
            r"no column 'camera' \(dataset\.folder\.keep_columns\[1\]\); its columns: id, text, labels, split, file$",
        ),
        ({"split_column": "fold"}, r"no column 'fold' \(dataset\.folder\.split_column\)"),
        ({"split_column": "labels"}, r"t\.csv, row 1 \(line 2\): unknown split 'boat\|water', expected train"),
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


def labels_of(raw):
    """Labels of all rows, in order; none of those without a label."""
    found = {item.row: item.labels for item in raw.items}
    return [found.get(row, ()) for row in range(1, raw.num_rows + 1)]


INDICATORS = [("boat", "sea"), (), ("sea",)]


@pytest.mark.parametrize(
    ("boat", "sea"),
    [
        (["1", "0", ""], ["1", "0", "1"]),
        (["True", "False", "False"], ["true", "", "TRUE"]),
        (["1.0", "0.0", ""], ["1", "0.0", "1.0"]),
        (["1", "nan", "NaN"], ["1", "0", "1"]),
        (["yes", "no", " No "], ["Y", "n", "y"]),
    ],
)
def test_several_columns_of_0_and_1_are_labels_of_their_names(source, boat, sea, caplog):
    caplog.set_level("INFO")
    rows = zip("123", "xyz", boat, sea, strict=True)
    write_csv(source / "t.csv", [("id", "text", "boat", "sea"), *rows])
    raw = open_folder(source, replace(CONFIG, label_columns=("boat", "sea")))
    assert labels_of(raw) == INDICATORS
    assert "label columns that hold 0 and 1 are read as indicators of the labels boat, sea" in caplog.text


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "tsv"])
@pytest.mark.parametrize("boat", [[1, 0, None], [True, False, None], [1.0, 0.0, float("nan")]])
def test_columns_of_0_and_1_in_every_format(source, suffix, boat):
    rows = {"id": ["1", "2", "3"], "text": ["x", "y", "z"], "boat": boat, "sea": [1, 0, 1]}
    write_table(source / f"t.{suffix}", rows)
    config = replace(CONFIG, table=f"t.{suffix}", label_columns=("boat", "sea"))
    assert labels_of(open_folder(source, config)) == INDICATORS


def write_table(path, columns):
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        rows = [["" if value is None else str(value) for value in row.values()] for row in table.to_pylist()]
        path.write_text("".join("\t".join(row) + "\n" for row in [list(columns), *rows]))


def test_a_column_of_labels_may_stand_beside_columns_of_0_and_1(source):
    write_csv(source / "t.csv", [("id", "text", "labels", "sea"), ("1", "x", "boat|dog", "1"), ("2", "y", "dog", "0")])
    raw = open_folder(source, replace(CONFIG, label_columns=("labels", "sea")))
    assert labels_of(raw) == [("boat", "dog", "sea"), ("dog",)]


@pytest.mark.parametrize("cells", ["01", ("True", "False"), ("1", ""), ("yes", "no")])
def test_a_single_column_of_0_and_1_is_refused(source, cells):
    write_csv(source / "t.csv", [HEADER, *(row(str(n), labels=cell) for n, cell in enumerate(cells))])
    with pytest.raises(InputError, match=r"t\.csv: the label column 'labels' holds only .*, which name no label"):
        open_folder(source, CONFIG)


def test_the_format_of_labels_may_be_said(source):
    write_csv(source / "t.csv", [("id", "text", "boat", "sea"), ("1", "x", "1", "0"), ("2", "y", "['a']", "1")])
    config = replace(CONFIG, label_columns=("boat", "sea"))
    values = replace(config, label_format="values")
    assert labels_of(open_folder(source, values)) == [("1", "0"), ("['a']", "1")]
    message = (
        r"t\.csv, row 2 \(line 3\): \"\['a'\]\" in the indicator column 'boat', expected 1, 0, true, false or nothing"
    )
    with pytest.raises(InputError, match=message):
        open_folder(source, replace(config, label_format="indicator"))
    one = replace(config, label_columns=("sea",), label_format="indicator")
    assert labels_of(open_folder(source, one)) == [(), ("sea",)]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["['boat', 'sea']", "['sea']"], [("boat", "sea"), ("sea",)]),
        (['["boat", "sea"]', "[]"], [("boat", "sea"), ()]),
        (["['boat' 'sea']", "{'sea'}"], [("boat", "sea"), ("sea",)]),
        (["[boat, sea]", "[sea]"], [("boat", "sea"), ("sea",)]),
        (["['boat', nan]", "sea|boat"], [("boat",), ("sea", "boat")]),
        (["['a|b']", "x"], [("a|b",), ("x",)]),
        (["nan", "boat|nan"], [(), ("boat",)]),
        (["[deleted]", "boat"], [("[deleted]",), ("boat",)]),
    ],
)
def test_lists_that_are_written_as_text_are_lists(source, cells, expected, caplog):
    caplog.set_level("INFO")
    write_csv(source / "t.csv", [HEADER, *(row(str(n), labels=cell) for n, cell in enumerate(cells))])
    assert labels_of(open_folder(source, CONFIG)) == expected
    is_list = "['" in cells[0] or cells[0][:2] in ('["', "[b")
    assert ("cells of the column 'labels' are lists written as text: read as lists" in caplog.text) == is_list


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
def test_lists_of_texts_are_joined(source, suffix):
    texts = [["a boat", "the sea"], [], ["x", None]]
    write_table(source / f"t.{suffix}", {"id": ["1", "2", "3"], "text": texts, "labels": [["boat"]] * 3})
    raw = open_folder(source, replace(CONFIG, table=f"t.{suffix}"))
    assert [item.text for item in raw.items] == ["a boat the sea", "x"]
    assert rejected(raw) == [(2, "2", Reason.EMPTY_TEXT)]


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "tsv"])
def test_nan_is_missing_in_every_column_and_format(source, suffix):
    nan = float("nan")
    write_table(source / f"t.{suffix}", {"id": [1.0, nan, 3.0], "text": ["x", "y", "nan"], "labels": [2.5, 2.5, nan]})
    raw = open_folder(source, replace(CONFIG, table=f"t.{suffix}"), keep_incomplete=True)
    assert [item.labels for item in raw.items] == [("2.5",)]
    assert [reason for _, _, reason in rejected(raw)] == [Reason.NO_ID, Reason.NO_LABEL]


def test_ids_are_the_same_with_space_around_them(source):
    write_csv(source / "t.csv", [HEADER, row("1 "), row(" 2"), row("1")])
    write_csv(source / "s.csv", [("id", "split"), (" 1", "train"), ("2 ", "test")])
    np.savez(source / "v.npz", ids=["1  ", "2"], features=np.ones((2, 2), np.float32))
    raw = open_folder(source, replace(CONFIG, splits="s.csv", image_vectors="v.npz"))
    assert [(item.id, item.split, raw.image(item)) for item in raw.items] == [
        ("1", "train", b"1.jpg"),
        ("2", "test", b"2.jpg"),
    ]
    assert rejected(raw) == [(3, "1", Reason.DUPLICATE_ID)]


def test_paths_of_windows_and_names_of_macos_are_found(source):
    (source / "images" / "sub").mkdir()
    (source / "images" / "sub" / "e\u0301.jpg").write_bytes(b"it")
    paths = ["sub\\é.jpg", "sub/é.jpg", "..\\t.csv", "C:\\x.jpg"]
    write_csv(source / "t.csv", [HEADER, *(row(str(n), file=path) for n, path in enumerate(paths))])
    raw = open_folder(source, replace(CONFIG, image_column="file"))
    assert [raw.image(item) for item in raw.items] == [b"it", b"it"]
    assert [reason for _, _, reason in rejected(raw)] == [Reason.IMAGE_OUTSIDE] * 2


def test_what_is_too_long_is_rejected_and_short_in_messages(source):
    rows = [row("i" * 1001), row("2", text="t" * 1_000_001), row("3", labels="l" * 1001), row("4", file="f" * 4097)]
    write_csv(source / "t.csv", [HEADER, *rows, row("i" * 1000, text="t" * 1_000_000, labels="l" * 1000)])
    raw = open_folder(source, replace(CONFIG, image_column="file"))
    assert [reason for _, _, reason in rejected(raw)] == [
        Reason.ID_TOO_LONG,
        Reason.TEXT_TOO_LONG,
        Reason.LABEL_TOO_LONG,
        Reason.PATH_TOO_LONG,
    ]
    assert len(raw.rejections[0].id) < 1010
    assert len(raw.items) == 1
    write_csv(source / "s.csv", [("id", "split"), ("x" * 100_000, "train")])
    with pytest.raises(InputError, match="none of the ids in") as error:
        open_folder(source, replace(CONFIG, splits="s.csv"))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("label_format", ["auto", "indicator"])
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("t.parquet", [[1, 0, 1], [0, 0, 0], None]),
        ("t.arrow", [[True, False, True], [False] * 3, None]),
        ("t.jsonl", [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], None]),
        ("t.jsonl", ["[1, 0, 1]", "[0, 0, 0]", None]),
        ("t.tsv", ["[1 0 1]", "[0 0 0]", None]),
        ("t.tsv", ["[1. 0. 1.]", "[0. 0. 0.]", None]),
        ("t.tsv", ["[1.0, 0.0, 1.0]", "[0.0, 0.0, 0.0]", None]),
    ],
)
def test_lists_of_0_and_1_are_multi_hot_where_labels_have_names(source, name, labels, label_format):
    (source / "names.txt").write_text("boat\ndog\nsea\n")
    write_table(source / name, {"id": ["1", "2", "3"], "text": ["x", "y", "z"], "labels": labels})
    config = replace(CONFIG, table=name, label_names="names.txt", label_format=label_format)
    assert labels_of(open_folder(source, config)) == [("boat", "sea"), (), ()]
    (source / "names.txt").write_text("boat\ndog\n")
    with pytest.raises(InputError, match=r"row 1.*: a list of 3 labels, expected 2, since there are so many names"):
        open_folder(source, config)


def test_lists_of_digits_stay_labels_where_the_names_are_digits(source):
    (source / "names.txt").write_text("0\n1\n7\n")
    write_table(source / "t.jsonl", {"id": ["1"], "text": ["x"], "labels": [["0", "1", "1"]]})
    config = replace(CONFIG, table="t.jsonl", label_names="names.txt")
    assert labels_of(open_folder(source, config)) == [("0", "1")]


@pytest.mark.parametrize("columns", [("boat",), ("boat", "sea")])
def test_minus_one_among_indicators_is_refused(source, columns):
    rows = [("1", "x", "-1", "0"), ("2", "y", "1", "1"), ("3", "z", "0", "1")]
    write_csv(source / "t.csv", [("id", "text", "boat", "sea"), *rows])
    with pytest.raises(InputError, match=r"t\.csv: the label column 'boat' holds -1 beside 0 and 1"):
        open_folder(source, replace(CONFIG, label_columns=columns))
