"""Tables of raw data: some columns of a CSV, TSV, Parquet, Arrow or JSON Lines file, as texts or lists of texts.

Rows are counted from 1, the first row of data: below the header of a CSV file, the first object of a JSON Lines file.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from dagnn_core.data.formats.cells import Cell, check_columns, check_length, without_missing
from dagnn_core.data.formats.column_file import ARROW, PARQUET, ColumnFile, open_columns, read_texts
from dagnn_core.data.formats.delimited import read_delimited, read_header
from dagnn_core.errors import InputError
from dagnn_core.text import one_line

log = logging.getLogger(__name__)


T = TypeVar("T", bound="Table")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of a table; missing values are empty texts."""

    path: Path
    num_rows: int
    columns: Mapping[str, list[Cell]]
    lines: list[int]
    """Line of the file on which each row begins, [num_rows]; empty for Parquet and Arrow, which have no lines."""

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
        path: `.csv` (header, commas, semicolons or tabs), `.tsv`, `.parquet`, `.arrow`, `.feather`, or `.jsonl` and
            `.ndjson` (one object a line); in capitals, too.
        columns: what a column is called in the configuration (for messages) -> name of the column.

    Raises:
        InputError: the file is missing, damaged, empty, not UTF-8, of another type, lacks a column, has one twice, or a
            cell in it is too long.
    """
    readers = dict.fromkeys((".csv", ".tsv"), _read_lines) | dict.fromkeys((".jsonl", ".ndjson"), _read_jsonl)
    readers |= dict.fromkeys((*PARQUET, *ARROW), _read_column_file)
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise InputError(f"{path} is not a table that can be read, expected {', '.join(readers)}", "convert it")
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, expected a table (CSV, TSV, Parquet, Arrow or JSON Lines)", "correct the path"
        )
    try:
        table = readers[suffix](path, columns)
    except UnicodeDecodeError as error:
        where = f", line {_undecodable_line(path)}" if error.encoding == "utf-8" else ""
        raise InputError(
            f"{path}{where}: not valid {error.encoding.upper()} ({error.reason})", "save the table as UTF-8"
        ) from error
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows, expected one row per item")
    return without_nan(table)


def column_names(path: Path, wanted: Iterable[str]) -> list[str]:
    """Names of the columns of a table, in its order; of JSON Lines those of all objects.

    Args:
        path: as for `read_table`.
        wanted: columns that it should have, by which the dialect of a CSV file is found.

    Raises:
        InputError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in (*PARQUET, *ARROW):
        return list(open_columns(path).schema.names)
    if suffix in (".csv", ".tsv"):
        return read_header(path, set(wanted))
    names: dict[str, None] = {}
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for line in stream:
                record = json.loads(line) if line.strip() else None
                names |= dict.fromkeys(record) if isinstance(record, dict) else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a table that can be read ({one_line(error)})", "correct it") from error
    return list(names)


def without_nan(table: T) -> T:
    """A table with empty texts for what pandas writes for missing values, which is said."""
    cleaned = {name: without_missing(cells) for name, cells in table.columns.items()}
    count = sum(number for _, number in cleaned.values())
    if count:
        log.info("%s: %d cells hold nan or <NA>, which counts as missing", table.path, count)
    return replace(table, columns={name: cells for name, (cells, _) in cleaned.items()})


def _read_lines(path: Path, columns: Mapping[str, str]) -> Table:
    cells, lines = read_delimited(path, columns)
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
            where = f"{path}, line {number}"
            try:
                record = json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: not valid JSON ({one_line(error)})", "correct this line") from error
            if not isinstance(record, dict):
                raise InputError(f"{where}: a JSON {type(record).__name__}, expected an object")
            present |= dict.fromkeys(record)
            lines.append(number)
            for name in names:
                cells[name].append(_json_cell(record.get(name), f"{where}: {name!r}"))
    check_columns(path, columns, present)
    return Table(path, len(lines), cells, lines)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys are there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _read_column_file(path: Path, columns: Mapping[str, str]) -> Table:
    return open_table(open_columns(path), columns)


def open_table(file: ColumnFile, columns: Mapping[str, str]) -> Table:
    """Some columns of a Parquet or Arrow file that is open; it may have no rows, and nan is a text.

    Raises:
        InputError: the file is damaged, lacks a column, has one twice, or a cell in it is too long.
    """
    check_columns(file.path, columns, file.schema.names)
    return Table(file.path, sum(file.group_sizes), read_texts(file, sorted(set(columns.values()))), lines=[])


def _json_cell(value: Any, where: str) -> Cell:
    if isinstance(value, list):
        return tuple(_json_text(entry, where) for entry in value)
    return _json_text(value, where)


def _json_text(value: Any, where: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        check_length(value, where)
        return value.encode(errors="replace").decode()  # JSON can spell half a character, which no file can hold
    if isinstance(value, int | float):
        return str(value)
    raise InputError(f"{where} is a JSON {type(value).__name__}, expected a text, a number or a list of them")


def _undecodable_line(path: Path) -> int:
    """Number of the first line that is not UTF-8 (the decoder reads ahead, so its own position is of no use)."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise AssertionError("the caller met a line that is not UTF-8")
