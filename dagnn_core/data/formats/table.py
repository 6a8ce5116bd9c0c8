"""Tables of raw data: some columns of a CSV, Parquet or JSON Lines file, as texts or lists of texts.

Rows are counted from 1, the first row of data: below the header of a CSV file, the first object of a JSON Lines file.
"""

import csv
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dagnn_core.errors import InputError

Cell = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of a table; missing values are empty texts."""

    path: Path
    num_rows: int
    columns: Mapping[str, list[Cell]]
    lines: list[int]
    """Line of the file on which each row begins, [num_rows]; empty for Parquet, which has no lines."""

    def place(self, row: int) -> str:
        """Where a row (from 1) is, for messages: `row 3 (line 4)`."""
        return f"row {row} (line {self.lines[row - 1]})" if self.lines else f"row {row}"

    def texts(self, column: str) -> list[str]:
        """A column of texts.

        Raises:
            InputError: a cell is a list.
        """
        texts: list[str] = []
        for row, cell in enumerate(self.columns[column], start=1):
            if not isinstance(cell, str):
                raise InputError(f"{self.path}, {self.place(row)}: column {column!r} holds a list, expected one text")
            texts.append(cell)
        return texts


def read_table(path: Path, columns: Mapping[str, str]) -> Table:
    """Read some columns of a table; numbers become texts as they are written.

    Args:
        path: `.csv` (UTF-8, comma, header), `.parquet`, or `.jsonl` (one object a line).
        columns: what a column is called in the configuration (for messages) -> name of the column.

    Raises:
        InputError: the file is missing, damaged, empty, not UTF-8, of another type, or lacks a column.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise InputError(f"{path} is not a table that can be read, expected {', '.join(readers)}", "convert it")
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a table (CSV, Parquet or JSON Lines)", "correct the path")
    try:
        table = readers[path.suffix](path, columns)
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        raise InputError(f"{path}, line {line}: not valid UTF-8 ({error.reason})", "save the table as UTF-8") from error
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows, expected one row per item")
    return table


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a table, in its order; of JSON Lines those of all rows.

    Raises:
        InputError: as `read_table`.
    """
    if path.suffix == ".parquet":
        try:
            names: list[str] = pq.read_schema(path).names
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path} is not a valid Parquet file ({error})", "write it again") from error
        return names
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix == ".csv":
                return next(csv.reader(stream, strict=True), [])
            records = (json.loads(line) for line in stream if line.strip())
            return list({name: None for record in records if isinstance(record, dict) for name in record})
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}), expected a table in UTF-8", "correct it") from error


def _read_csv(path: Path, columns: Mapping[str, str]) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader, [])
            _check_columns(path, columns, header)
            positions = {name: header.index(name) for name in columns.values()}
            cells: dict[str, list[Cell]] = {name: [] for name in positions}
            lines: list[int] = []
            end = reader.line_num
            for row in reader:
                begin, end = end + 1, reader.line_num
                if not row:  # a blank line
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {begin}: {len(row)} cells, expected {len(header)} as in the header",
                        "quote cells that contain commas",
                    )
                lines.append(begin)
                for name, position in positions.items():
                    cells[name].append(row[position])
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error})", "correct this line") from error
    return Table(path, len(lines), cells, lines)


def _read_jsonl(path: Path, columns: Mapping[str, str]) -> Table:
    names = set(columns.values())
    present: dict[str, None] = {}
    cells: dict[str, list[Cell]] = {name: [] for name in names}
    lines: list[int] = []
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not valid JSON ({error})", "correct this line") from error
            if not isinstance(record, dict):
                raise InputError(f"{path}, line {number}: a JSON {type(record).__name__}, expected an object")
            present |= dict.fromkeys(record)
            lines.append(number)
            for name in names:
                cells[name].append(_json_cell(record.get(name), f"{path}, line {number}: {name!r}"))
    _check_columns(path, columns, present)
    return Table(path, len(lines), cells, lines)


def _read_parquet(path: Path, columns: Mapping[str, str]) -> Table:
    cells: dict[str, list[Cell]] = {}
    try:
        schema = pq.read_schema(path)
        _check_columns(path, columns, schema.names)
        table = pq.read_table(path, columns=sorted(set(columns.values())))
    except pa.ArrowException as error:
        raise InputError(f"{path} is not a valid Parquet file ({error})", "write it again") from error
    for field in table.schema:
        is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        wanted = pa.list_(pa.string()) if is_list else pa.string()
        try:
            values = table[field.name].cast(wanted).to_pylist()
        except pa.ArrowException as error:
            raise InputError(
                f"{path}: column {field.name!r} has the type {field.type}, expected texts, numbers or lists of them"
            ) from error
        cells[field.name] = [_arrow_cell(value) for value in values]
    return Table(path, table.num_rows, cells, lines=[])


def _check_columns(path: Path, columns: Mapping[str, str], present: Iterable[str]) -> None:
    names = list(present)
    for role, name in columns.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f", did you mean {close[0]!r}?" if close else ""
            listed = ", ".join(names) or "none"
            raise InputError(f"{path} has no column {name!r} ({role}){hint}", f"its columns: {listed}")


def _json_cell(value: Any, where: str) -> Cell:
    if isinstance(value, list):
        return tuple(_json_text(entry, where) for entry in value)
    return _json_text(value, where)


def _json_text(value: Any, where: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # JSON can spell half a character, which no file can hold
    if isinstance(value, int | float):
        return str(value)
    raise InputError(f"{where} is a JSON {type(value).__name__}, expected a text, a number or a list of them")


def _arrow_cell(value: str | list[str | None] | None) -> Cell:
    if isinstance(value, list):
        return tuple(entry for entry in value if entry is not None)
    return value or ""


def _undecodable_line(path: Path) -> int:
    """Number of the first line that is not UTF-8 (the decoder reads ahead, so its own position is of no use)."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise AssertionError("the caller met a line that is not UTF-8")
