import shutil
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagnn_core.config.dataset import HuggingFaceConfig
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


def test_images_are_those_of_the_rows_whoever_asks(huggingface):
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
    with pytest.raises(InputError, match=r"0000\.parquet names no split, though other files do; expected train, val"):
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
    with pytest.raises(InputError, match=r"train-00000-of-00002\.parquet, row 1: the label 3, expected a number below"):
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
    with pytest.raises(InputError, match=r"is not a valid Parquet file .*; copy it again"):
        open_huggingface(train.parent, CONFIG)
    with pytest.raises(InputError, match=r"none has no \.parquet file, expected the folder of a Hugging Face data set"):
        open_huggingface(tmp_path / "none", CONFIG)
