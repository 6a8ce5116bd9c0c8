import ast
import datetime
import decimal
import re
import subprocess
import sys
from contextlib import suppress
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dagnn_core.data.formats import column_file
from dagnn_core.data.formats.column_file import open_columns
from dagnn_core.data.formats.table import read_table
from dagnn_core.errors import InputError

NAN = float("nan")
LISTS = [["a", "b"], [], None, ["c", None]]
AS_CELLS = [("a", "b"), (), "", ("c", "")]


def write(folder, table, kind):
    """Write a table as `kind`; its file."""
    path = folder / f"t.{'parquet' if kind == 'parquet' else 'arrow'}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    return path


@pytest.fixture(params=["parquet", "stream", "file"])
def kind(request):
    return request.param


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", "b", None]), ["a", "b", ""]),
        (pa.array(["a", "b", None], pa.large_string()), ["a", "b", ""]),
        (pa.array(["a", "b", None], pa.string_view()), ["a", "b", ""]),
        (pa.array([b"a", b"b", None]), ["a", "b", ""]),
        (pa.array(["a", "b", "a", None]).dictionary_encode(), ["a", "b", "a", ""]),
        (pa.array([1, 2, None]).dictionary_encode(), ["1", "2", ""]),
        (pa.array([1.5, NAN, None, 2.0]), ["1.5", "", "", "2"]),
        (pa.array([1.5, NAN, 2.0], pa.float32()), ["1.5", "", "2"]),
        (pa.array([True, False, None]), ["true", "false", ""]),
        (pa.array([None, None], pa.null()), ["", ""]),
        (pa.array([decimal.Decimal("1.50"), None]), ["1.50", ""]),
        (pa.array([datetime.date(2024, 2, 3), None]), ["2024-02-03", ""]),
        (pa.array([datetime.datetime(2024, 2, 3, 4, 5), None], pa.timestamp("ms")), ["2024-02-03 04:05:00.000", ""]),
        (pa.array(LISTS), AS_CELLS),
        (pa.array(LISTS, pa.large_list(pa.large_string())), AS_CELLS),
        (pa.array([["a", "b"], ["c", None]], pa.list_(pa.string(), 2)), [("a", "b"), ("c", "")]),
        (pa.array([[1.5, NAN], [2.0]]), [("1.5", ""), ("2",)]),
        (pa.array([[True, False], [None]]), [("true", "false"), ("",)]),
        (pa.array(LISTS, pa.list_(pa.string_view())), AS_CELLS),
        (pa.ListArray.from_arrays([0, 2, 3], pa.array(["a", "b", "a"]).dictionary_encode()), [("a", "b"), ("a",)]),
        (pa.array([["a", "nan"], ["<NA>"]]), [("a", ""), ("",)]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_every_type_that_pandas_polars_and_datasets_write(tmp_path, kind, column, expected):
    path = write(tmp_path, pa.table({"x": column, "other": [[{"a": 1}]] * len(column)}), kind)
    table = read_table(path, {"the column": "x"})
    assert table.columns["x"] == expected
    assert table.num_rows == len(expected)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"a": 1}]),
        pa.array([[["a"]]]),
        pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([b"\xff"]),
        pa.array([b"\xff"], pa.binary(1)),
    ],
    ids=lambda column: str(column.type),
)
def test_other_types_are_named(tmp_path, kind, column):
    path = write(tmp_path, pa.table({"x": column}), kind)
    kind = re.escape(str(column.type).split("<")[0])
    with pytest.raises(
        InputError, match=rf"column 'x' has the type {kind}.*, expected texts, numbers or lists of them"
    ):
        read_table(path, {"the column": "x"})


def test_a_list_of_fixed_size_may_be_missing_where_arrow_can_read_it(tmp_path, kind):
    path = write(tmp_path, pa.table({"x": pa.array([["a", "b"], None], pa.list_(pa.string(), 2))}), kind)
    if kind == "parquet":
        with pytest.raises(InputError, match=r"a list of fixed size is missing in a row.*; write x as lists without"):
            read_table(path, {"x": "x"})
    else:
        assert read_table(path, {"x": "x"}).columns["x"] == [("a", "b"), ""]


def test_names_that_are_there_twice_are_refused(tmp_path, kind):
    path = write(tmp_path, pa.table([["a"], ["b"]], ["x", "x"]), kind)
    with pytest.raises(InputError, match=r"has the column 'x' twice"):
        read_table(path, {"the column": "x"})


def test_groups_of_rows_are_read_alone(tmp_path, kind):
    path = write(tmp_path, pa.table({"x": list(range(8)), "y": list("abcdefgh")}), kind)
    file = open_columns(path)
    assert file.group_sizes == [3, 3, 2]
    assert [file.read_group(number, "y").to_pylist() for number in (2, 0, 1)] == [["g", "h"], [*"abc"], [*"def"]]


@pytest.mark.parametrize("suffix", [".arrow", ".feather", ".ARROW"])
def test_compressed_files_are_read(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    table = pa.table({"x": ["a", "b"]})
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    assert read_table(path, {"x": "x"}).texts("x") == ["a", "b"]


@pytest.mark.parametrize("kept", [0, 5, 0.5, -9, -8, -1])
def test_damaged_files_are_named(tmp_path, kind, kept):
    path = write(tmp_path, pa.table({"x": ["a" * 100, "b" * 100]}), kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"t\.\w+ is (not a valid (Parquet|Arrow) file|damaged) .*; write or copy"):
        read_table(path, {"x": "x"})


def test_a_text_that_is_too_long_is_named_before_it_is_unpacked(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(column_file, "MAX_CELL_CHARACTERS", 100)
    for column in (["a", "b" * 101], [["a"], ["b" * 101]], pa.array(["a", "b" * 101]).dictionary_encode()):
        path = write(tmp_path, pa.table({"x": column}), kind)
        with pytest.raises(InputError, match=r"column 'x': a cell of 1\d\d characters, expected at most"):
            read_table(path, {"x": "x"})


@pytest.mark.parametrize("cell", ["x" * 1000, ["x" * 1000]], ids=["texts", "lists"])
def test_a_file_that_expands_beyond_measure_is_refused(tmp_path, monkeypatch, cell):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [cell] * 5000}), path)
    assert len(read_table(path, {"x": "x"}).columns["x"]) == 5000
    monkeypatch.setattr(column_file, "SMALL_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"its texts are more than 1 MiB, expected at most 1 MiB in a file of"):
        read_table(path, {"x": "x"})


def test_a_group_of_rows_that_unpacks_beyond_measure_is_refused(tmp_path, monkeypatch):
    images = pa.table({"x": [{"bytes": bytes(3 << 20) + bytes([number])} for number in range(3)]})
    pq.write_table(images, tmp_path / "t.parquet", compression="zstd")
    monkeypatch.setattr(column_file, "SMALL_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"t\.parquet: a row group is \d MiB unpacked, expected at most 1 MiB"):
        open_columns(tmp_path / "t.parquet").read_group(0, "x")


TOTAL_SIZE = b"\x16\xf8\x01\x16\x04"
"""Of the row group in the footer below: 124 bytes, before its 2 rows."""
LEVELS = b"\x19\x06\x19&\x00\x04"
"""Two lists of 64-bit numbers in the footer below, of no and of two entries: how often each level occurs."""


def test_what_a_parquet_file_says_of_its_columns_may_be_damaged_anywhere(tmp_path):
    """Arrow ends the process where one of these bytes is wrong and one asks for the size of a column."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["x", "y"]}), path)
    whole = path.read_bytes()
    draw = Random(0)
    refused = 0
    for place in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        try:
            read_table(path, {"id": "id"})
        except InputError:
            refused += 1
    assert refused > 100
    assert (whole.count(TOTAL_SIZE), whole.count(LEVELS)) == (1, 2)
    negative = whole.replace(TOTAL_SIZE, b"\x16\xff\x01\x16\x04")  # so that the sizes of columns are asked for
    path.write_bytes(negative)
    assert read_table(path, {"id": "id"}).columns["id"] == ["a", "b"]
    path.write_bytes(negative.replace(LEVELS, b"\x19\x46\x19&\x00\x04"))
    with pytest.raises(InputError, match=r"a\.parquet is damaged"):
        read_table(path, {"id": "id"})


@pytest.mark.parametrize("seed", range(3))
def test_damage_anywhere_is_one_line_and_no_crash(tmp_path, kind, seed):
    random = Random(seed)
    columns = {"text": ["a boat", None] * 10, "labels": [["x", "y"], ["z"]] * 10, "image": [{"bytes": b"abc"}] * 20}
    columns["kind"] = pa.array(["q", "r"] * 10).dictionary_encode()
    path = write(tmp_path, pa.table(columns), kind)
    content = path.read_bytes()
    for _ in range(40):
        damaged, place = bytearray(content), random.randrange(len(content))
        damaged[place : place + 8] = random.choice([b"\xff" * 8, bytes(8), random.randbytes(8), b"\x7f" + b"\xff" * 7])
        path.write_bytes(damaged)
        with suppress(InputError):
            read_table(path, {name: name for name in ("text", "labels", "kind")})
        with suppress(InputError, KeyError):  # another name
            file = open_columns(path)
            for number in range(len(file.group_sizes)):
                file.read_group(number, "image").to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["'x' * 100_000", "['x' * 100_000]"], ids=["texts", "lists"])
def test_gigabytes_of_text_in_a_small_file_cost_little_memory(tmp_path, cell):
    path = tmp_path / "t.parquet"
    part = pa.table({"x": pa.array([ast.literal_eval(cell.replace("'x' * 100_000", repr("x" * 100_000)))] * 500)})
    with pq.ParquetWriter(path, part.schema) as writer:
        for _ in range(40):
            writer.write_table(part)
    assert path.stat().st_size < 10 << 20
    read = f"""
import re
from pathlib import Path
from dagnn_core.data.formats.table import read_table
from dagnn_core.errors import InputError
try:
    read_table(Path({str(path)!r}), {{"x": "x"}})
except InputError as error:
    # its own peak: that of getrusage has that of the process that started it
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], error)
"""
    done = subprocess.run([sys.executable, "-c", read], check=True, capture_output=True, text=True)
    memory, message = done.stdout.split(" ", 1)
    assert "expected at most" in message
    assert int(memory) < 900 << 10  # in KiB, of 2 GB of text
