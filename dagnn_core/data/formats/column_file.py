"""Files of columns, Parquet and Arrow IPC: their columns as texts, and groups of rows of one column."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagnn_core.data.formats.cells import MAX_CELL_CHARACTERS, Cell, too_long
from dagnn_core.errors import InputError
from dagnn_core.text import one_line

PARQUET, ARROW = (".parquet",), (".arrow", ".feather")
BATCH_ROWS = 64  # few, since a text that Parquet holds once may be in all of them
BATCH_BYTES = 16 << 20  # fewer rows where they are large
MAX_EXPANSION = 50  # times the size of the file: texts compress tenfold, a bomb a thousandfold
SMALL_BYTES = 256 << 20  # what any file may expand to

_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)  # the last for names of columns
_FILE_MAGIC = b"ARROW1"
_PRINT_SIZES = """
import json, sys
import pyarrow.parquet as pq
metadata = pq.read_metadata(sys.argv[1])
groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
columns = ([group.column(place) for place in range(group.num_columns)] for group in groups)
json.dump([[(one.path_in_schema, one.total_uncompressed_size) for one in group] for group in columns], sys.stdout)
"""
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


class ColumnFile(Protocol):
    """A file of columns, whose rows are in groups."""

    path: Path
    schema: pa.Schema
    group_sizes: list[int]
    """Rows of each group."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns, a few rows at a time."""

    def read_group(self, number: int, column: str) -> pa.ChunkedArray:
        """One column of a group of rows.

        Raises:
            InputError: the file is damaged there.
        """


def open_columns(path: Path) -> ColumnFile:
    """Open a file of columns.

    Args:
        path: `.parquet`, or `.arrow` or `.feather`, which are Arrow IPC files or streams.

    Raises:
        InputError: it is not what its suffix says, or damaged.
    """
    try:
        return _Parquet(path) if path.suffix.lower() in PARQUET else _Arrow(path)
    except _DAMAGE as error:
        kind = "Parquet" if path.suffix.lower() in PARQUET else "Arrow"
        raise InputError(f"{path} is not a valid {kind} file ({one_line(error)})", "write or copy it again") from error


def read_texts(file: ColumnFile, columns: Sequence[str]) -> dict[str, list[Cell]]:
    """Columns as texts or lists of texts; missing values, NaN among them, are empty texts.

    Raises:
        InputError: a column has values of another kind, a cell or the whole is too large, or the file is damaged.
    """
    cells: dict[str, list[Cell]] = {name: [] for name in columns}
    characters, most = 0, _most_bytes(file.path)
    try:
        for batch in file.batches(columns):
            for name in columns:
                values = _storage(batch.column(name))
                characters += _check_lengths(values, f"{file.path}, column {name!r}")
                if characters > most:
                    raise _bomb(file.path, f"its texts are more than {characters >> 20:,} MiB", most)
                kind = one_line(file.schema.field(name).type)
                cells[name] += _cells(values, f"{file.path}: column {name!r} has the type {kind}")
    except _DAMAGE as error:
        if "Expected all lists to be of size" in str(error):
            raise InputError(
                f"{file.path}: a list of fixed size is missing in a row, which Arrow cannot read from Parquet",
                f"write {' or '.join(columns)} as lists without a fixed size",
            ) from error
        raise InputError(f"{file.path} is damaged ({one_line(error)})", "write or copy it again") from error
    return cells


class _Parquet:
    def __init__(self, path: Path) -> None:
        self.path = path
        with pq.ParquetFile(path) as file:
            self.schema = file.schema_arrow
            self._groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
            leaves = [file.schema.column(place) for place in range(len(file.schema))]
        self.group_sizes = [group.num_rows for group in self._groups]
        self._flat = {leaf.name for leaf in leaves if leaf.path == leaf.name}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            for number, group in enumerate(self._groups):
                row_bytes = self._check_size(number, columns) // max(1, group.num_rows)
                rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, row_bytes)))
                yield from file.iter_batches(rows, row_groups=[number], columns=list(dict.fromkeys(columns)))

    def read_group(self, number: int, column: str) -> pa.ChunkedArray:
        try:
            self._check_size(number, [column])
            with pq.ParquetFile(self.path) as file:
                return file.read_row_group(number, columns=[column])[column]
        except _DAMAGE as error:
            raise _damaged_group(self.path, number, error) from error

    def _check_size(self, number: int, columns: Sequence[str]) -> int:
        """Bytes of some columns of a row group, unpacked, or more; known before a page of them is unpacked."""
        group, most = self._groups[number], _most_bytes(self.path)
        num_rows = max(1, group.num_rows)
        if 0 <= group.total_byte_size <= min(most, num_rows * MAX_CELL_CHARACTERS):
            return int(group.total_byte_size)
        sizes = self._sizes[number]
        size = sum(of for path, of in sizes if any(path == name or path.startswith(f"{name}.") for name in columns))
        if size > most:
            raise _bomb(self.path, f"a row group is {size >> 20:,} MiB unpacked", most)
        for path, of in sizes:
            if path in self._flat.intersection(columns) and of // num_rows > MAX_CELL_CHARACTERS:
                raise too_long(f"{self.path}, column {path!r}", of // num_rows)
        return size

    @cached_property
    def _sizes(self) -> list[list[tuple[str, int]]]:
        """Path and unpacked bytes of each column, for each row group, read in a process of its own.

        Arrow ends the process where the statistics beside them are damaged.
        """
        command = [sys.executable, "-P", "-c", _PRINT_SIZES, str(self.path)]  # -P: no module of the working folder
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            raise pa.ArrowInvalid("what it says of its columns cannot be read")
        return [[(path, size) for path, size in group] for group in json.loads(done.stdout)]


class _Arrow:
    """An Arrow IPC file, or the stream that the library `datasets` writes to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            self._is_stream = stream.read(len(_FILE_MAGIC)) != _FILE_MAGIC
            if self._is_stream:
                stream.seek(-min(len(_STREAM_END), path.stat().st_size), 2)
                if stream.read() != _STREAM_END:
                    raise pa.ArrowInvalid("it ends too early")
        self.schema = self._open(()).schema
        self.group_sizes = [batch.num_rows for batch in self._all_batches([0])]
        self._held: dict[str, list[pa.RecordBatch]] = {}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._sound_batches(columns):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)

    def read_group(self, number: int, column: str) -> pa.ChunkedArray:
        try:
            if column not in self._held:  # of a mapped file nothing is copied
                self._held[column] = list(self._sound_batches([column]))
            return pa.chunked_array([self._held[column][number].column(column)])
        except _DAMAGE as error:
            raise _damaged_group(self.path, number, error) from error

    def _sound_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        size, most = 0, _most_bytes(self.path)
        for batch in self._all_batches(sorted({self.schema.get_field_index(name) for name in columns})):
            batch.validate(full=True)  # a damaged offset would be read outside of the file, even for the size
            size += batch.nbytes
            if size > most:
                raise _bomb(self.path, f"its columns are {size >> 20:,} MiB unpacked", most)
            yield batch

    def _all_batches(self, places: Sequence[int]) -> Iterator[pa.RecordBatch]:
        reader = self._open(places)
        if self._is_stream:
            yield from reader
        else:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    def _open(self, places: Sequence[int]) -> Any:
        mapped = pa.memory_map(str(self.path))
        options = pa.ipc.IpcReadOptions(included_fields=list(places))
        return (pa.ipc.open_stream if self._is_stream else pa.ipc.open_file)(mapped, options=options)


def _most_bytes(path: Path) -> int:
    return max(SMALL_BYTES, MAX_EXPANSION * path.stat().st_size)


def _bomb(path: Path, what: str, most: int) -> InputError:
    return InputError(
        f"{path}: {what}, expected at most {most >> 20:,} MiB in a file of {path.stat().st_size:,} bytes",
        "a file that unpacks to so much more than its size is not read: write it again without repetitions",
    )


def _damaged_group(path: Path, number: int, error: Exception) -> InputError:
    return InputError(f"{path} is damaged in row group {number + 1} ({one_line(error)})", "copy it again")


def _storage(array: pa.Array) -> pa.Array:
    """The array, without the name of an extension type."""
    return array.storage if isinstance(array.type, pa.BaseExtensionType) else array


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _check_lengths(array: pa.Array, where: str) -> int:
    """Bytes of all texts in an array; a text of too many is an error."""
    if _is_list(array.type):
        return _check_lengths(_storage(pc.list_flatten(array)), where)
    array = _compact(array)
    values = array.dictionary if pa.types.is_dictionary(array.type) else array
    if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    if not (_is_text(values.type)):
        return 0
    lengths = pc.binary_length(values)
    longest = pc.max(lengths).as_py() or 0
    if longest > MAX_CELL_CHARACTERS:
        raise too_long(where, longest)
    each = lengths.take(array.indices) if pa.types.is_dictionary(array.type) else lengths
    return pc.sum(each).as_py() or 0


def _compact(array: pa.Array) -> pa.Array:
    """A dictionary array with those values alone that its rows have: batches share the dictionary of all rows."""
    if not pa.types.is_dictionary(array.type):
        return array
    used = pc.unique(array.indices).drop_null()
    return pa.DictionaryArray.from_arrays(pc.index_in(array.indices, value_set=used), array.dictionary.take(used))


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _cells(array: pa.Array, what: str) -> list[Cell]:
    try:
        if not _is_list(array.type):
            return list(_texts(array))
        texts = iter(_texts(_storage(pc.list_flatten(array))))
        lengths = pc.list_value_length(array).to_pylist()
        return ["" if length is None else tuple(next(texts) for _ in range(length)) for length in lengths]
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(
            f"{what}, expected texts, numbers or lists of them"
            + ("" if isinstance(error, pa.ArrowNotImplementedError) else f" ({one_line(error)})"),
            "name another column, or write it as texts",
        ) from error


def _texts(array: pa.Array) -> list[str]:
    array = _compact(array)
    if pa.types.is_dictionary(array.type):
        values = _texts(array.dictionary)
        return ["" if index is None else values[index] for index in array.indices.to_pylist()]
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    return [value or "" for value in array.cast(pa.large_string()).to_pylist()]
