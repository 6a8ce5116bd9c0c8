"""CSV and TSV files, as spreadsheets, databases and pandas write them."""

import codecs
import csv
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from dagnn_core.data.formats.cells import Cell, check_columns, check_length
from dagnn_core.errors import InputError

log = logging.getLogger(__name__)

MAX_FIELD_BYTES = 256 << 20  # of any cell, also in a column that is not read: images in base64, pages of HTML

# of UTF-32 before UTF-16, whose mark it begins with
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
_MARKS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEPARATOR_LINE = re.compile(r"sep=(.)")  # the first line of what a spreadsheet exports for itself
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class _Reader(Protocol):
    """What `csv.reader` makes."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...


class Delimited(NamedTuple):
    """Some columns, and the line on which each row begins."""

    cells: dict[str, list[Cell]]
    lines: list[int]


class _Dialect(NamedTuple):
    delimiter: str
    skips_spaces: bool
    """Whether spaces after a delimiter are no part of the cell, as in the header."""
    encoding: str
    skips_line: bool
    """Whether the first line names the separator and is no header."""


def read_delimited(path: Path, columns: Mapping[str, str]) -> Delimited:
    """Read some columns of a CSV or TSV file with a header.

    Semicolons, tabs or vertical bars separate the cells where the columns are found by them and not by commas. A file
    with a byte order mark may be UTF-16 or UTF-32, any other is UTF-8.

    Args:
        path: of the file; `.tsv` has tabs.
        columns: what a column is called in the configuration (for messages) -> name of the column.

    Raises:
        InputError: it is not valid, or lacks a column.
        UnicodeDecodeError: it is not in its encoding.
    """
    with _large_fields():
        dialect = _choose_dialect(path, set(columns.values()))
        with path.open(encoding=dialect.encoding, newline="") as stream:
            reader = _reader(stream, dialect)
            try:
                return _read_rows(path, reader, columns, dialect)
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {reader.line_num}: not valid CSV ({error})",
                    'correct this line; a quote inside a quoted cell is written twice: ""',
                ) from error


def read_header(path: Path, wanted: set[str]) -> list[str]:
    """Names of the columns of a CSV or TSV file.

    Args:
        path: of the file.
        wanted: columns by which the dialect is found.

    Raises:
        UnicodeDecodeError: it is not in its encoding.
    """
    with _large_fields():
        return _try_header(path, _choose_dialect(path, wanted))


@contextmanager
def _large_fields() -> Iterator[None]:
    """The limit of the module csv, which is one for the process, as wide as ours."""
    before = csv.field_size_limit(MAX_FIELD_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_rows(path: Path, reader: _Reader, columns: Mapping[str, str], dialect: _Dialect) -> Delimited:
    header = _header(reader, dialect)
    if any("\0" in name for name in header):
        raise InputError(f"{path}, line 1: null characters in the header, expected UTF-8", "save the table as UTF-8")
    check_columns(path, columns, header)
    positions = {name: header.index(name) for name in columns.values()}
    cells: dict[str, list[Cell]] = {name: [] for name in positions}
    lines: list[int] = []
    end = reader.line_num
    for row in reader:
        begin, end = end + 1, reader.line_num
        if not row:  # a blank line
            continue
        if len(row) != len(header):
            separators = _NAMES.get(dialect.delimiter, repr(dialect.delimiter))
            raise InputError(
                f"{path}, line {begin}: {len(row)} cells, expected {len(header)} as in the header",
                f"quote cells that contain {separators}",
            )
        lines.append(begin)
        for name, position in positions.items():
            check_length(row[position], f"{path}, line {begin}, column {name!r}")
            cells[name].append(row[position])
    return Delimited(cells, lines)


def _reader(stream: Iterator[str], dialect: _Dialect) -> _Reader:
    return csv.reader(stream, strict=True, delimiter=dialect.delimiter, skipinitialspace=dialect.skips_spaces)


def _header(reader: _Reader, dialect: _Dialect) -> list[str]:
    rows = (row for row in reader if row)
    if dialect.skips_line:
        next(rows, [])
    header = next(rows, [])
    return [name.strip() for name in header] if dialect.skips_spaces else header


def _choose_dialect(path: Path, wanted: set[str]) -> _Dialect:
    """The first dialect whose header has all columns wanted; the usual one where none has."""
    encoding, first_line = _encoding(path), ""
    with path.open(encoding=encoding, newline="") as stream:
        first_line = stream.readline(MAX_FIELD_BYTES).rstrip("\r\n")
    separator = _SEPARATOR_LINE.fullmatch(first_line.strip('"'))
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    delimiters = [separator[1]] if separator else [usual, *(set(_NAMES) - {usual})]
    dialects = [
        _Dialect(delimiter, skips_spaces, encoding, separator is not None)
        for delimiter in sorted(delimiters, key=lambda delimiter: (delimiter != usual, delimiter))
        for skips_spaces in (False, True)
    ]
    chosen = next((dialect for dialect in dialects if wanted <= set(_try_header(path, dialect))), dialects[0])
    if chosen.delimiter != usual or encoding != "utf-8-sig":
        names = _NAMES.get(chosen.delimiter, repr(chosen.delimiter))
        log.info("%s: read as %s, with %s between the cells", path, encoding.removesuffix("-sig").upper(), names)
    return chosen


def _try_header(path: Path, dialect: _Dialect) -> list[str]:
    with path.open(encoding=dialect.encoding, newline="") as stream:
        try:
            return _header(_reader(stream, dialect), dialect)
        except csv.Error:
            return []


def _encoding(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(4)
    return next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), "utf-8-sig")
