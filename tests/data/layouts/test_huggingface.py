import json
import shutil
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagnn_core.config.dataset import HuggingFaceConfig
from dagnn_core.data.formats.archives import ImageError
from dagnn_core.data.images import map_in_order
from dagnn_core.data.layouts import huggingface as module
from dagnn_core.data.layouts.huggingface import open_huggingface
from dagnn_core.data.raw import Reason
from dagnn_core.errors import InputError

CONFIG = HuggingFaceConfig()


def rewrite(path, group_size=5, **columns):
    """Replace columns of a file, keeping its schema's notes."""
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values)) if place >= 0 else table.append_column(name, [values])
    pq.write_table(table, path, row_group_size=group_size)


@pytest.fixture
def train(huggingface):
    """Alone in its data set."""
    for path in (huggingface / "data").glob("t*-0000[01]-of-0000?.parquet"):
        if not path.name.startswith("train-00000"):
            path.unlink()
    return huggingface / "data" / "train-00000-of-00002.parquet"


def test_rows_of_all_files_with_splits_by_name(huggingface):
    raw = open_huggingface(huggingface, CONFIG)
    assert raw.num_rows == 30
    assert Counter(item.split for item in raw.items) == {"test": 6, "train": 24}
    assert raw.draws_val
    assert raw.label_order == ("cat", "dog", "car")
    last = raw.items[-1]
    assert (last.row, last.id, last.text, last.labels) == (30, "train-24", "one 23 two 23", ("dog", "car"))
    assert raw.place(30) == "data/train-00001-of-00002.parquet, row 12"
    assert raw.place(6) == "data/test-00000-of-00001.parquet, row 6"


def test_images_are_those_of_the_rows_in_every_process(huggingface):
    raw = open_huggingface(huggingface, CONFIG)
    files = sorted((huggingface / "data").glob("*.parquet"))
    expected = [row["bytes"] for file in files for row in pq.read_table(file)["image"].to_pylist()]
    assert list(map_in_order(raw.image, raw.items)) == expected
    assert [raw.image(item) for item in raw.items[::-1]] == expected[::-1]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 13), st.lists(st.integers(0, 11), max_size=20))
def test_any_order_and_size_of_row_groups(train, group_size, order):
    rewrite(train, group_size)
    raw = open_huggingface(train.parent, CONFIG)
    expected = pq.read_table(train)["image"].to_pylist()
    assert [raw.image(raw.items[row]) for row in order] == [expected[row]["bytes"] for row in order]


def test_each_row_group_is_read_once_and_few_are_in_memory(huggingface, monkeypatch):
    reads = []
    real = pq.ParquetFile.read_row_group

    def counting(file, number, columns):
        reads.append(number)
        return real(file, number, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    raw = open_huggingface(huggingface, CONFIG)
    list(map_in_order(raw.image, raw.items))
    assert sorted(reads) == [0, 0, 0, 1, 1, 1, 2, 2]
    monkeypatch.setattr(module, "BYTES_HELD", 0)
    files = [module._read_file(path, "", CONFIG, ()) for path in sorted(huggingface.rglob("*.parquet"))]
    column = module._ImageColumn(files, "image")
    for row in range(1, 31):
        assert column.cell(row)["bytes"]
        assert len(column._held) <= module.GROUPS_HELD


def test_splits_by_folder_or_none(huggingface):
    data = huggingface / "data"
    for split in ("train", "validation", "test"):
        (huggingface / "default" / split).mkdir(parents=True)
        shutil.copy(data / "test-00000-of-00001.parquet", huggingface / "default" / split / "0000.parquet")
    raw = open_huggingface(huggingface / "default", CONFIG)
    assert Counter(item.split for item in raw.items) == {"train": 6, "val": 6, "test": 6}
    assert not raw.draws_val
    assert len({item.id for item in raw.items}) == 18
    (data / "test-00000-of-00001.parquet").unlink()
    raw = open_huggingface(data, CONFIG)
    assert {item.split for item in raw.items} == {""}, "train alone is drawn from"
    shutil.move(data / "train-00000-of-00002.parquet", data / "0000.parquet")
    with pytest.raises(InputError, match=r"0000\.parquet names no split that is known, though other files do; re"):
        open_huggingface(huggingface, CONFIG)


def test_labels_and_texts_as_texts_and_an_id(train):
    rewrite(
        train,
        labels=[["boat", "sea"] if row % 2 else ["boat"] for row in range(12)],
        text=[f" a\nboat {row}" for row in range(12)],
        key=list(range(100, 112)),
    )
    raw = open_huggingface(train.parent, replace(CONFIG, id_column="key"))
    assert [(item.id, item.text, item.labels) for item in raw.items[:2]] == [
        ("100", "a boat 0", ("boat",)),
        ("101", "a boat 1", ("boat", "sea")),
    ]
    assert raw.label_order == ()
    (train.parent / "names.txt").write_text("sea\nboat\n")
    raw = open_huggingface(train.parent, replace(CONFIG, label_names="names.txt"))
    assert raw.label_order == ("sea", "boat")


def test_one_label_by_number_with_names_from_a_file(train):
    rewrite(train, labels=[row % 2 for row in range(12)])
    (train.parent / "names.txt").write_text("sea\nboat\n")
    raw = open_huggingface(train.parent, replace(CONFIG, label_names="names.txt"))
    assert [item.labels for item in raw.items[:2]] == [("sea",), ("boat",)]


@pytest.mark.parametrize(
    "feature",
    [
        '{"names": ["x", "y", "z"], "_type": "ClassLabel"}',
        '[{"names": ["x", "y", "z"], "_type": "ClassLabel"}]',
        '{"feature": {"names": ["x", "y", "z"]}, "length": -1, "_type": "List"}',
    ],
)
def test_names_of_labels_in_every_form_of_the_schema(train, feature):
    table = pq.read_table(train)
    notes = f'{{"info": {{"features": {{"labels": {feature}}}}}}}'
    pq.write_table(table.replace_schema_metadata({"huggingface": notes}), train)
    assert open_huggingface(train.parent, CONFIG).label_order == ("x", "y", "z")


@pytest.mark.parametrize(
    "notes",
    [
        None,
        "{",
        "[]",
        '{"info": {"features": {"labels": {"feature": "int64"}}}}',
        '{"info": {"features": {"labels": {"names": 3}}}}',
    ],
)
def test_numbers_without_names_are_refused(train, notes):
    table = pq.read_table(train).replace_schema_metadata({"huggingface": notes} if notes else None)
    pq.write_table(table, train)
    with pytest.raises(InputError, match=r"column 'labels' holds numbers and the schema has no names .*label_names"):
        open_huggingface(train.parent, CONFIG)


def test_unknown_labels_are_none_and_numbers_beyond_the_names_an_error(train):
    rewrite(train, labels=[[-1], *([[0]] * 11)])
    raw = open_huggingface(train.parent, CONFIG)
    assert [(entry.row, entry.reason) for entry in raw.rejections] == [(1, Reason.NO_LABEL)]
    rewrite(train, labels=[[3], *([[0]] * 11)])
    with pytest.raises(InputError, match=r"-of-00002\.parquet, row 1: the label '3', expected a whole number below 3"):
        open_huggingface(train.parent, CONFIG)


def test_images_beside_the_table(train):
    folder = train.parent
    (folder / "images").mkdir()
    (folder / "images" / "a.jpg").write_bytes(b"A")
    (folder.parent / "secret.jpg").write_bytes(b"S")
    rewrite(train, image=["images/a.jpg", "none.jpg", "../secret.jpg", *([""] * 9)])
    raw = open_huggingface(folder, CONFIG)
    assert [(entry.row, entry.reason) for entry in raw.rejections] == [(3, Reason.IMAGE_OUTSIDE)]
    assert [raw.image(item) for item in raw.items[:3]] == [b"A", None, None]
    inside = [{"bytes": None, "path": "images/a.jpg"}, None, {"bytes": None, "path": "../secret.jpg"}]
    rewrite(train, image=[*inside, *([{"bytes": b"B", "path": "images/a.jpg"}] * 9)])
    raw = open_huggingface(folder, CONFIG)
    assert [raw.image(item) for item in raw.items[:4]] == [b"A", None, None, b"B"]
    rewrite(train, image=[b"B"] * 12)
    raw = open_huggingface(folder, CONFIG)
    assert raw.image(raw.items[0]) == b"B"


def test_rows_without_text_are_rejected_or_incomplete(train):
    rewrite(train, text=[[], None, ["a", None, " "], *([["a"]] * 9)])
    raw = open_huggingface(train.parent, CONFIG)
    assert [(entry.row, entry.reason) for entry in raw.rejections] == [(1, Reason.EMPTY_TEXT), (2, Reason.EMPTY_TEXT)]
    raw = open_huggingface(train.parent, CONFIG, keep_incomplete=True)
    assert [item.has_text for item in raw.items[:3]] == [False, False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_column": "img"}, r"no column 'img' \(dataset\.huggingface\.image_column\)"),
        ({"text_column": "texts"}, r"no column 'texts' \(dataset\.huggingface\.text_column\), did you mean 'text'\?"),
        ({"label_column": "label"}, r"no column 'label' \(dataset\.huggingface\.label_column\), did you mean 'labels"),
        ({"id_column": "id"}, r"no column 'id' \(dataset\.huggingface\.id_column\)"),
        ({"text_column": "image"}, r"column 'image' has the type struct"),
        ({"image_column": "labels"}, r"column 'labels' holds a list, expected one text"),
        ({"label_names": "none.txt"}, r"none\.txt does not exist"),
    ],
)
def test_columns_are_named_in_errors(train, changes, message):
    with pytest.raises(InputError, match=message):
        open_huggingface(train.parent, replace(CONFIG, **changes))


def test_damaged_and_missing_files_are_named(train, tmp_path):
    raw = open_huggingface(train.parent, CONFIG)
    content = train.read_bytes()
    train.write_bytes(b"PAR1" + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(InputError, match=r"train-00000-of-00002\.parquet is damaged in row group 1"):
        raw.image(raw.items[0])
    train.write_bytes(content[:100])
    with pytest.raises(InputError, match=r"is not a valid Parquet file .*; write or copy it again"):
        open_huggingface(train.parent, CONFIG)
    with pytest.raises(InputError, match=r"none has no \.parquet file, expected the folder of a Hugging Face data set"):
        open_huggingface(tmp_path / "none", CONFIG)


VECTORS = [[1, 0, 1], [0, 0, 0], [0, 1, 1]] * 4
FROM_VECTORS = [("cat", "car"), (), ("dog", "car")] * 4


def labels_of(raw):
    """Labels of all rows, in order; none of those without a label."""
    found = {item.row: item.labels for item in raw.items}
    return [found.get(row, ()) for row in range(1, raw.num_rows + 1)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.list_(pa.int64()), VECTORS),
        (pa.list_(pa.uint8()), VECTORS),
        (pa.list_(pa.float32()), VECTORS),
        (pa.list_(pa.bool_()), [[bool(bit) for bit in vector] for vector in VECTORS]),
        (pa.large_list(pa.int64()), VECTORS),
        (pa.list_(pa.int64(), 3), VECTORS),
        (pa.list_(pa.float64(), 3), VECTORS),
        (pa.list_(pa.bool_(), 3), [[bool(bit) for bit in vector] for vector in VECTORS]),
        (pa.list_(pa.int64()), [*VECTORS[:-1], None]),
    ],
    ids=str,
)
def test_lists_with_0_or_1_for_each_name_are_multi_hot(train, kind, values, caplog):
    caplog.set_level("INFO")
    rewrite(train, labels=pa.array(values, kind))
    raw = open_huggingface(train.parent, CONFIG)
    expected = [labels if vector else () for labels, vector in zip(FROM_VECTORS, values, strict=True)]
    assert labels_of(raw) == expected
    assert "the lists of 0 and 1 in 'labels' are read as one value for each label" in caplog.text


def two_names(train):
    (train.parent / "names.txt").write_text("sea\nboat\n")
    return replace(CONFIG, label_names="names.txt")


def test_lists_of_two_with_two_names_are_multi_hot_where_a_value_repeats(train):
    rewrite(train, labels=[[1, 1], [0, 1], [1, 0]] * 4)
    assert labels_of(open_huggingface(train.parent, two_names(train)))[:3] == [("sea", "boat"), ("boat",), ("sea",)]


def test_what_may_be_multi_hot_or_numbers_is_refused_until_the_format_decides(train):
    rewrite(train, labels=[[0, 1], [1, 0]] * 6)
    config = two_names(train)
    message = r"have 2 values .*, which are only '0', '1', and there are 2 label names.*\.label_format to indicator"
    with pytest.raises(InputError, match=message):
        open_huggingface(train.parent, config)
    raw = open_huggingface(train.parent, replace(config, label_format="indicator"))
    assert labels_of(raw)[:2] == [("boat",), ("sea",)]
    raw = open_huggingface(train.parent, replace(config, label_format="values"))
    assert labels_of(raw)[:2] == [("sea", "boat"), ("boat", "sea")]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [[1, 0, 0, 1]] * 12,
            r"have 4 values \(12 of 12 lists\), which are only '0', '1', and there are 3 label names",
        ),
        ([[1, 0, -1], [0, 0, 1]] * 6, r"have 3 values \(12 of 12 lists\), which are only '-1', '0', '1', and there"),
        ([*([[1, 0, 0]] * 11), [1, 0]], r"have 3 values \(11 of 12 lists\), which are only '0', '1', and there are 3"),
        ([[0.3, 0.0, 0.7]] * 12, r"row 1: the label '0\.3', expected a whole number below 3"),
        ([[True, False]] * 12, r"have 2 values .*, which are only 'false', 'true', and there are 3 label names"),
        ([True] * 12, r"row 1: the label 'true', expected a whole number below 3"),
        ([5.0] * 12, r"row 1: the label '5', expected a whole number below 3"),
    ],
)
def test_lists_that_are_neither_multi_hot_nor_numbers_are_refused(train, labels, message):
    rewrite(train, labels=labels)
    with pytest.raises(InputError, match=message):
        open_huggingface(train.parent, CONFIG)


@pytest.mark.parametrize(
    "labels",
    [
        [[0, 1], [2], [0, 1, 2]] * 4,
        [[0], [1]] * 6,
        [[0, 1], [1]] * 6,
        [[0, 1, 2], [0, 1], [1, 0]] * 4,
        [[2, 1, 0]] * 12,
        [[0, 0, 1], [1, 1]] * 6,  # one number for each object in the image
        pa.array([[0, 1], [1, 2]] * 6, pa.list_(pa.int64(), 2)),
        [0.0, 2.0, float("nan")] * 4,
    ],
    ids=str,
)
def test_lists_of_numbers_stay_numbers(train, labels):
    rewrite(train, labels=labels)
    names = ("cat", "dog", "car")
    values = labels.to_pylist() if isinstance(labels, pa.Array) else labels
    numbers = [[] if value != value else value if isinstance(value, list) else [value] for value in values]  # noqa: PLR0124
    expected = [tuple(dict.fromkeys(names[int(number)] for number in row)) for row in numbers]
    assert labels_of(open_huggingface(train.parent, CONFIG)) == expected


def test_multi_hot_lists_with_a_format_are_checked_row_by_row(train):
    config = replace(CONFIG, label_format="indicator")
    for labels, message in (
        ([[1, 0, 0], [1, 0]], r"row 2: a list of 2 labels, expected 3, since there are so many names"),
        ([[1, 0, 2], [1, 0, 0]], r"row 1: the value '2' in a list of 0 and 1 for each label, expected 0 or 1"),
        ([1, 0], r"row 1: the label '1', expected a list with 0 or 1 for each label"),
    ):
        rewrite(train, labels=labels * 6)
        with pytest.raises(InputError, match=message):
            open_huggingface(train.parent, config)


def test_true_and_false_without_names_are_no_labels(train):
    rewrite(train, labels=[True, False] * 6)
    table = pq.read_table(train)
    pq.write_table(table.replace_schema_metadata(None), train)
    with pytest.raises(InputError, match=r"column 'labels' holds only true and false, .*indicator_columns"):
        open_huggingface(train.parent, CONFIG)


def test_one_column_for_each_label(train):
    rewrite(train, boat=[1, 0] * 6, sea=[True, None] * 6, dog=[0.0, 1.0] * 6)
    config = replace(CONFIG, indicator_columns=("boat", "sea", "dog"), label_column="none")
    raw = open_huggingface(train.parent, config)
    assert labels_of(raw)[:2] == [("boat", "sea"), ("dog",)]
    assert raw.label_order == ()
    with pytest.raises(InputError, match=r"no column 'cow' \(dataset\.huggingface\.indicator_columns\[1\]\)"):
        open_huggingface(train.parent, replace(config, indicator_columns=("boat", "cow")))
    rewrite(train, boat=[2, 0] * 6)
    with pytest.raises(InputError, match=r"row 1: '2' in the indicator column 'boat', expected 1, 0, true"):
        open_huggingface(train.parent, config)


@pytest.mark.parametrize(
    ("labels", "changes", "expected"),
    [
        (["['boat', 'sea']", "['sea']"], {}, [("boat", "sea"), ("sea",)]),
        (['["boat", "sea"]', "[]"], {}, [("boat", "sea"), ()]),
        (["boat, sea", "sea"], {"label_separator": ","}, [("boat", "sea"), ("sea",)]),
        (["['boat']", "sea"], {"label_format": "values"}, [("['boat']",), ("sea",)]),
        (["nan", "sea"], {}, [(), ("sea",)]),
        (pa.array([["boat", "sea"]] * 2, pa.list_(pa.string(), 2)), {}, [("boat", "sea")] * 2),
        (pa.array([["boat", "sea"]] * 2, pa.large_list(pa.string_view())), {}, [("boat", "sea")] * 2),
    ],
    ids=str,
)
def test_labels_as_texts_in_every_form(train, labels, changes, expected):
    rewrite(train, labels=pa.concat_arrays([labels] * 6) if isinstance(labels, pa.Array) else labels * 6)
    assert labels_of(open_huggingface(train.parent, replace(CONFIG, **changes))) == expected * 6


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (pa.array([["a", "b"]] * 12, pa.list_(pa.string(), 2)), "a b"),
        (pa.array([["a", "b"]] * 12, pa.large_list(pa.string())), "a b"),
        (["['a boat', 'the sea']"] * 12, "a boat the sea"),
        (["[a boat]"] * 12, "[a boat]"),
    ],
    ids=str,
)
def test_texts_in_every_form(train, texts, expected):
    rewrite(train, text=texts)
    assert {item.text for item in open_huggingface(train.parent, CONFIG).items} == {expected}


@pytest.mark.parametrize("notes", ["schema", "file"])
@pytest.mark.parametrize("batch_rows", [1, 5, 12])
def test_what_save_to_disk_writes(huggingface, tmp_path, batch_rows, notes):
    saved = tmp_path / "saved"
    for split, name in (("train", "train-00000-of-00002"), ("test", "test-00000-of-00001")):
        (saved / split).mkdir(parents=True)
        table = pq.read_table(huggingface / "data" / f"{name}.parquet")
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]
        if notes == "file":
            table = table.replace_schema_metadata(None)
            (saved / split / "dataset_info.json").write_text(json.dumps(features))
        with pa.ipc.new_stream(saved / split / "data-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=batch_rows)
    raw = open_huggingface(saved, CONFIG)
    assert Counter(item.split for item in raw.items) == {"test": 6, "train": 12}
    assert raw.draws_val
    assert raw.label_order == ("cat", "dog", "car")
    assert raw.items[-1].labels == ("dog", "car")
    assert raw.place(7) == "train/data-00000-of-00001.arrow, row 1"
    (huggingface / "data" / "train-00001-of-00002.parquet").unlink()
    same = open_huggingface(huggingface, CONFIG)
    assert list(map_in_order(raw.image, raw.items)) == list(map_in_order(same.image, same.items))
    assert [item[1:4] for item in raw.items] == [item[1:4] for item in same.items]


def test_images_that_save_to_disk_left_outside_are_named_with_the_remedy(train):
    rewrite(train, image=[{"bytes": None, "path": "/somewhere/a.jpg"}] * 12)
    raw = open_huggingface(train.parent, CONFIG)
    with pytest.raises(ImageError, match=r"the image is at '/somewhere/a\.jpg', outside of the data set; .*to_parquet"):
        raw.image(raw.items[0])


def test_image_paths_of_windows_and_macos(train):
    (train.parent / "images").mkdir()
    (train.parent / "images" / "e\u0301.jpg").write_bytes(b"A")
    rewrite(train, image=["images\\é.jpg"] * 12)
    raw = open_huggingface(train.parent, CONFIG)
    assert raw.image(raw.items[0]) == b"A"


def test_files_without_rows_are_read_beside_others(train):
    pq.write_table(pq.read_table(train).slice(0, 0), train.with_name("train-00001-of-00002.parquet"))
    assert open_huggingface(train.parent, CONFIG).num_rows == 12
    pq.write_table(pq.read_table(train).slice(0, 0), train)
    with pytest.raises(InputError, match="has files without rows"):
        open_huggingface(train.parent, CONFIG)


def test_lists_of_two_names_with_and_without_both_are_numbers(train):
    rewrite(train, labels=[[0, 1], [0, 1], [0]] * 4)
    assert labels_of(open_huggingface(train.parent, two_names(train)))[:3] == [
        ("sea", "boat"),
        ("sea", "boat"),
        ("sea",),
    ]


def test_what_is_said_of_many_files_is_said_once(huggingface, caplog):
    caplog.set_level("INFO")
    for path in (huggingface / "data").iterdir():
        count = pq.read_metadata(path).num_rows
        rewrite(path, labels=["['boat', 'nan']"] * count, text=["['a', 'b']"] * (count - 1) + ["nan"])
    raw = open_huggingface(huggingface, CONFIG)
    assert raw.rejections[0].reason == Reason.EMPTY_TEXT
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said == [
        "3 cells hold nan or <NA>, which counts as missing",
        "27 cells of the column 'text' are lists written as text: read as lists",
        "30 cells of the column 'labels' are lists written as text: read as lists",
    ]
