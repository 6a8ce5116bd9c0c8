import csv

import pytest

from dagnn_core.data.formats import cells, delimited
from dagnn_core.data.formats.table import read_table
from dagnn_core.errors import InputError

COLUMNS = {"id": "id", "labels": "labels"}
EXPECTED = {"id": ["1", "2"], "labels": ["a|b", "c;d, e"]}


def columns_of(path, wanted=COLUMNS):
    table = read_table(path, wanted)
    return {name: table.columns[name] for name in wanted.values()}


@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("t.csv", 'id,labels\n1,a|b\n2,"c;d, e"\n', "utf-8"),
        ("T.CSV", 'id,labels\n1,a|b\n2,"c;d, e"\n', "utf-8"),
        ("t.csv", '\n\nid,labels\n1,a|b\n\n2,"c;d, e"\n', "utf-8"),
        ("t.csv", 'id,labels\r1,a|b\r2,"c;d, e"\r', "utf-8"),
        ("t.csv", 'id;labels\n1;a|b\n2;"c;d, e"\n', "utf-8"),
        ("t.csv", 'sep=;\r\nid;labels\r\n1;a|b\r\n2;"c;d, e"\r\n', "utf-8-sig"),
        ("t.csv", "id\tlabels\n1\ta|b\n2\tc;d, e\n", "utf-8"),
        ("t.tsv", "id\tlabels\n1\ta|b\n2\tc;d, e\n", "utf-8"),
        ("t.tsv", 'id,labels\n1,a|b\n2,"c;d, e"\n', "utf-8"),
        ("t.csv", 'id,labels\n1,a|b\n2,"c;d, e"\n', "utf-16"),
        ("t.txt.csv", "id\tlabels\n1\ta|b\n2\tc;d, e\n", "utf-16"),
        ("t.csv", 'id,labels\n1,a|b\n2,"c;d, e"\n', "utf-32"),
        ("t.csv", 'id, labels, x\n1, a|b, y\n2, "c;d, e", y\n', "utf-8"),
        ("t.csv", '"id", "labels"\n"1", "a|b"\n"2", "c;d, e"\n', "utf-8"),
        ("t.csv", ',id,labels,,\n0,1,a|b,,\n1,2,"c;d, e",,\n', "utf-8"),
    ],
)
def test_what_spreadsheets_databases_and_pandas_write(tmp_path, name, content, encoding):
    (tmp_path / name).write_text(content, encoding=encoding, newline="")
    assert columns_of(tmp_path / name) == EXPECTED


def test_an_unusual_dialect_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "t.csv").write_text("id;labels\n1;a\n", encoding="utf-16")
    columns_of(tmp_path / "t.csv")
    assert "t.csv: read as UTF-16, with semicolons between the cells" in caplog.text


@pytest.mark.parametrize("column", ["text", "html"])
def test_long_cells_are_read_in_columns_that_are_used_and_in_others(tmp_path, column):
    before = csv.field_size_limit()
    (tmp_path / "t.csv").write_text(f"text,html\n{'x' * 200_000},{'y' * 300_000}\n")
    assert len(read_table(tmp_path / "t.csv", {"c": column}).texts(column)[0]) >= 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,labels,labels\n1,a,b\n", r"t\.csv has the column 'labels' twice, expected each name once; rename"),
        (b"id,labels,x,x\n1,a,b,c\n", r"t\.csv has the column 'x' twice"),
        (b"id;labels;labels\n1;a;b\n", r"t\.csv has the column 'labels' twice"),
        ("id,labels\n1,a\n".encode("utf-16-le"), r"t\.csv, line 1: null characters in the header, expected UTF-8"),
        (
            "id,labels\n1,".encode("utf-16") + b"\x00\xd8a\x00",
            r"t\.csv: not valid UTF-16-LE .*; save the table as UTF-8",
        ),
        (b"id;labels\n1;a;b\n", r"line 2: 3 cells, expected 2 as in the header; quote cells that contain semicolons"),
        (b'id,labels\n1,"a \\"b\\" c"\n', r"line 2: not valid CSV .*a quote inside a quoted cell is written twice"),
        (b"id,name\n1,a\n", r"no column 'labels' \(labels\).*its columns: id, name"),
        (b",".join(b"%d" % n for n in range(30)) + b"\n", "its columns: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        columns_of(tmp_path / "t.csv")
    assert "\n" not in str(error.value)


def test_cells_beyond_all_measure_are_refused_with_their_line(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "MAX_CELL_CHARACTERS", 100)
    (tmp_path / "t.csv").write_text(f"id,labels\n1,a\n{'2' * 101},b\n")
    with pytest.raises(InputError, match=r"line 3, column 'id': a cell of 101 characters, expected at most 100"):
        columns_of(tmp_path / "t.csv")
    (tmp_path / "t.jsonl").write_text('{"id": "1", "labels": ["a", "' + "b" * 101 + '"]}')
    with pytest.raises(InputError, match=r"t\.jsonl, line 1: 'labels': a cell of 101 characters"):
        columns_of(tmp_path / "t.jsonl")
    monkeypatch.setattr(delimited, "MAX_FIELD_BYTES", 200)
    (tmp_path / "t.csv").write_text(f"id,labels,x\n1,a,{'x' * 201}\n")
    with pytest.raises(InputError, match=r"t\.csv, line 2: not valid CSV \(field larger than field limit"):
        columns_of(tmp_path / "t.csv")
