import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagnn_core.data.formats.table import read_table
from dagnn_core.errors import InputError


def write_jsonl(path, records):
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def test_csv_keeps_leading_zeros_and_counts_lines_through_line_breaks_and_blank_lines(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\r\n007,"two\nlines"\r\n\r\n008,one\r\n')
    table = read_table(path, {"id": "id", "text": "text"})
    assert table.texts("id") == ["007", "008"]
    assert table.texts("text") == ["two\nlines", "one"]
    assert [table.place(row) for row in (1, 2)] == ["row 1 (line 2)", "row 2 (line 5)"]


def test_jsonl_makes_texts_of_numbers_and_missing_values(tmp_path):
    records = [{"id": 7, "labels": ["a", 1, None]}, {"id": 2.5, "labels": None}, {"id": float("nan")}]
    table = read_table(write_jsonl(tmp_path / "table.jsonl", records), {"id": "id", "labels": "labels"})
    assert table.texts("id") == ["7", "2.5", ""]
    assert table.columns["labels"] == [("a", "1", ""), "", ""]
    assert table.place(3) == "row 3 (line 3)"


def test_jsonl_replaces_half_characters(tmp_path):
    (tmp_path / "table.jsonl").write_text('{"text": "cut \\ud83d"}')
    assert read_table(tmp_path / "table.jsonl", {"text": "text"}).texts("text") == ["cut ?"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, None, 30]), ["1", "", "30"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["a", "b", None], pa.large_string()), ["a", "b", ""]),
    ],
)
def test_parquet_makes_texts_of_what_pandas_and_arrow_write(tmp_path, ids, expected):
    labels = pa.array([["x", "y"], [], None])
    pq.write_table(pa.table({"id": ids, "labels": labels}), tmp_path / "table.parquet")
    table = read_table(tmp_path / "table.parquet", {"id": "id", "labels": "labels"})
    assert table.texts("id") == expected
    assert table.columns["labels"] == [("x", "y"), (), ""]
    assert table.place(2) == "row 2"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r")), min_size=1, max_size=5))
def test_three_formats_hold_the_same_texts(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("tables")
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
    (folder / "t.csv").write_bytes("\n".join(["text", *quoted]).encode())
    write_jsonl(folder / "t.jsonl", [{"text": text} for text in texts])
    pq.write_table(pa.table({"text": texts}), folder / "t.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert read_table(folder / f"t.{suffix}", {"text": "text"}).texts("text") == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"idd,txt\n1,a\n", r"no column 'text' \(the text\), did you mean 'txt'\?; its columns: idd, txt"),
        ("t.csv", b"", "no column 'text'.*its columns: none"),
        ("t.csv", b"text\n", "has no rows"),
        ("t.csv", b"id,text\n1,a\n2,b,c\n", "line 3: 3 cells, expected 2 as in the header; quote"),
        ("t.csv", b'text\na\n"b\n', r"line 3: not valid CSV \(unexpected end of data\)"),
        ("t.csv", b"text\na\n\xff\n", "line 3: not valid UTF-8"),
        ("t.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: not valid JSON"),
        ("t.jsonl", b'["a"]\n', "line 1: a JSON list, expected an object"),
        ("t.jsonl", b'{"text": {"en": "a"}}\n', "line 1: 'text' is a JSON dict, expected a text"),
        ("t.jsonl", b'{"caption": "a"}\n', "no column 'text'"),
        ("t.jsonl", b'{"text": "\xff"}\n', "line 1: not valid UTF-8"),
        ("t.parquet", b"PAR1 not really", "not a valid Parquet file"),
        ("t.xlsx", b"", "not a table that can be read, expected \\.csv, \\.tsv, \\.jsonl, .*convert it"),
    ],
)
def test_bad_tables_are_named_with_their_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_table(path, {"the text": "text"})
    assert str(path) in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv does not exist, expected a table"):
        read_table(tmp_path / "none.csv", {})


def test_a_parquet_column_without_texts_is_named_with_its_type(tmp_path):
    pq.write_table(pa.table({"text": [{"en": "a"}]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"column 'text' has the type struct<en: string>, expected texts"):
        read_table(tmp_path / "t.parquet", {"the text": "text"})


def test_a_list_where_one_text_is_expected_is_named_with_its_row(tmp_path):
    table = read_table(write_jsonl(tmp_path / "t.jsonl", [{"text": "a"}, {"text": ["b", "c"]}]), {"text": "text"})
    with pytest.raises(InputError, match=r"t\.jsonl, row 2 \(line 2\): column 'text' holds a list"):
        table.texts("text")
