"""Layout `huggingface`: a local folder with the files of a Hugging Face data set, images inside or beside.

The files are Parquet, or Arrow as the library's `save_to_disk` writes it.
"""

import json
import logging
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from dagnn_core.config.dataset import HuggingFaceConfig
from dagnn_core.data.formats.archives import FileState, ImageError, ImageFolder
from dagnn_core.data.formats.cells import Cell
from dagnn_core.data.formats.column_file import ColumnFile, open_columns
from dagnn_core.data.formats.spellings import AnySpelling
from dagnn_core.data.formats.table import Table, open_table, without_nan
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.labels import (
    HAS_LABEL,
    LACKS_LABEL,
    label_texts,
    labels_of_vector,
    normal_label,
    read_indicators,
    read_label_columns,
    read_label_names,
    read_list_column,
    split_labels,
)
from dagnn_core.data.layouts.hub_files import WRITE_PARQUET, find_files, read_note, schema_names
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.errors import InputError
from dagnn_core.text import quote

log = logging.getLogger(__name__)

UNKNOWN_LABEL = "-1"  # what the library `datasets` writes where a label is not known
GROUPS_HELD = 2  # row groups of images in memory, at least: threads that read ahead meet two of them at a border
BYTES_HELD = 64 << 20  # and more of them while they are small

_BITS = HAS_LABEL | LACKS_LABEL


@dataclass(frozen=True, slots=True)
class _Rows(Table):
    """The rows of all files as one table."""

    names: Sequence[str]
    """Of the files, relative to the data set."""
    starts: Sequence[int]
    """Rows before each file, and all rows."""

    def place(self, row: int) -> str:
        """Where a row (from 1) is, for messages: `data/train-00000-of-00002.parquet, row 3`."""
        number = bisect_right(self.starts, row - 1) - 1
        return f"{self.names[number]}, row {row - self.starts[number]}"


class _File(NamedTuple):
    """One file, without its images."""

    split: str
    """Empty where splits are drawn."""
    source: ColumnFile
    table: Table
    label_names: tuple[str, ...]
    """Names of numbered labels; empty where the labels are texts."""
    paths: list[str] | None
    """Paths of the images; None where they are inside."""


def open_huggingface(source: Path, config: HuggingFaceConfig, *, keep_incomplete: bool = False) -> RawData:
    """Read all columns but the images, which are read with their group of rows when asked for.

    A file's split is in its name (`train-00000-of-00002.parquet`) or in that of a folder; where all files are of one
    split, or none names any, splits are drawn.

    Args:
        source: the folder with the files, and folders below it.
        config: columns and label names.
        keep_incomplete: whether a row without text is an item that lacks it and no fault.

    Raises:
        InputError: a file is missing or damaged, or lacks a column; a split is unknown; a label has no name, or a list
            of numbers may be read in two ways.
    """
    names = read_label_names(source / config.label_names) if config.label_names else ()
    files = [_read_file(path, split, config, names) for path, split in find_files(source).items()]
    table = _all_rows(source, files)
    if not table.num_rows:
        raise InputError(f"{source} has files without rows, expected one row per item")
    items, rejections = quarantine(_items(table, files, config, names), keep_incomplete=keep_incomplete)
    states, folder = [FileState.of(file.table.path) for file in files], AnySpelling(ImageFolder(source))
    order = dict.fromkeys(name for file in files for name in file.label_names or names)
    splits = {file.split for file in files}
    return RawData(
        source=str(source),
        num_rows=table.num_rows,
        items=items,
        rejections=rejections,
        image=_image_reader(source, files, config.image_column),
        # an image beside the files whose path a struct names counts as unchanged, since that takes reading the struct
        image_state=lambda item: (states, folder.state(item.image_path)),
        label_order=tuple(order),
        draws_val="test" in splits and "val" not in splits,
        place=table.place,
    )


def _read_file(path: Path, split: str, config: HuggingFaceConfig, names: tuple[str, ...]) -> _File:
    file = open_columns(path)
    keys = {"text_column": config.text_column}
    keys |= {"id_column": config.id_column} if config.id_column else {}
    keys |= {f"indicator_columns[{place}]": name for place, name in enumerate(config.indicator_columns)}
    keys |= {} if config.indicator_columns else {"label_column": config.label_column}
    image_column = config.image_column
    is_inside = image_column in file.schema.names and _is_image(file.schema.field(image_column).type)
    keys |= {} if is_inside else {"image_column": image_column}
    table = open_table(file, {f"dataset.huggingface.{key}": name for key, name in keys.items()})
    if config.indicator_columns or not _is_number(file.schema, config.label_column):
        names = ()
    else:
        names = names or _names_beside(file, config.label_column)
        if not names:
            raise _unnamed(path, config.label_column, file.schema.field(config.label_column).type)
    return _File(split, file, table, names, None if is_inside else table.texts(image_column))


def _all_rows(source: Path, files: Sequence[_File]) -> _Rows:
    names = [str(file.table.path.relative_to(source)) for file in files]
    starts = [0, *accumulate(file.table.num_rows for file in files)]
    columns = {
        name: [cell for file in files for cell in file.table.columns[name]]
        for name in files[0].table.columns
        if all(name in file.table.columns for file in files)  # only some may have paths instead of images
    }
    return without_nan(_Rows(source, starts[-1], columns, [], names, starts))


def _is_image(kind: pa.DataType) -> bool:
    """Whether a column holds encoded images: alone, or beside their paths."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and (_is_image(field.type) or pa.types.is_null(field.type)) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_number(schema: pa.Schema, column: str) -> bool:
    kind = _of_entries(schema, column)
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_boolean(schema: pa.Schema, column: str) -> bool:
    return bool(pa.types.is_boolean(_of_entries(schema, column)))


def _of_entries(schema: pa.Schema, column: str) -> pa.DataType:
    """The type of a column's values, or of the entries of its lists."""
    kind = schema.field(column).type
    return getattr(kind, "value_type", kind)


def _unnamed(path: Path, column: str, kind: pa.DataType) -> InputError:
    if pa.types.is_boolean(kind):
        return InputError(
            f"{path}: column {column!r} holds only true and false, which name no label",
            "name one such column for each label in dataset.huggingface.indicator_columns",
        )
    return InputError(
        f"{path}: column {column!r} holds numbers and the schema has no names for them",
        "give a file with the names in dataset.huggingface.label_names; for columns of 0 and 1 that are named after "
        "their labels, set indicator_columns",
    )


def _names_beside(file: ColumnFile, column: str) -> tuple[str, ...]:
    """Names of numbered labels that the library `datasets` leaves in the schema, or beside the file."""
    try:
        features = json.loads((file.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError, RecursionError):
        note = read_note(file.path.parent / "dataset_info.json")
        features = note.get("features") if isinstance(note, dict) else None
    return tuple(map(normal_label, schema_names(features.get(column)))) if isinstance(features, dict) else ()


def _are_vectors(
    table: _Rows, cells: Sequence[Cell], files: Sequence[_File], config: HuggingFaceConfig, *, is_boolean: bool
) -> bool:
    """Whether the lists of numbers are 0 or 1 for each label, and not the numbers of labels.

    Raises:
        InputError: they may be both.
    """
    if config.label_format != "auto":
        return config.label_format == "indicator"
    counts = {len(file.label_names) for file in files if file.label_names}
    lists = Counter(cell for cell in cells if isinstance(cell, tuple) and cell)
    values = {entry.casefold() for cell in lists for entry in cell}
    if not lists or not values <= _BITS | {UNKNOWN_LABEL, ""}:
        return False
    sizes = Counter[int]()
    for cell, number in lists.items():
        sizes[len(cell)] += number
    size, most = sizes.most_common(1)[0]
    repeats = any(len(set(cell)) < len(cell) for cell in lists)  # the number of a label is in a list once
    if 2 * most <= sizes.total() or (not repeats and not is_boolean and (len(sizes) > 1 or {size} != counts)):
        return False
    if set(sizes) == counts and values <= _BITS and (repeats or is_boolean or size > 2):
        log.info("%s: the lists of 0 and 1 in %r are read as one value for each label", table.path, config.label_column)
        return True
    if len(sizes) > 1 and {size} != counts:
        return False
    found, num_names = ", ".join(map(quote, sorted(values))), " or ".join(map(str, sorted(counts)))
    raise InputError(
        f"{table.path}: lists in column {config.label_column!r} have {size} values ({most} of {sizes.total()} lists), "
        f"which are only {found}, and there are {num_names} label names: 0 or 1 for each label, or numbers of labels?",
        "set dataset.huggingface.label_format to indicator or to values, and check the label names",
    )


def _items(table: _Rows, files: Sequence[_File], config: HuggingFaceConfig, names: Sequence[str]) -> Iterator[RawItem]:
    """All rows, numbered from 1."""
    texts = read_list_column(table, config.text_column, allow_bare=False)
    labels = _labels(table, files, config, names)
    numbers = Counter[str]()
    row = 0
    for file in files:
        for place in range(file.table.num_rows):
            numbers[file.split] += 1
            row += 1
            text = " ".join(" ".join(_parts(texts[row - 1])).split())
            item_id = f"{file.split or 'row'}-{numbers[file.split]}"
            if config.id_column:
                item_id = " ".join(_parts(table.columns[config.id_column][row - 1]))
            path = f"{file.table.path.name}#{place + 1}" if file.paths is None else file.paths[place]
            yield RawItem(row, item_id, text, labels[row - 1], path, file.split, has_text=bool(text))


def _labels(
    table: _Rows, files: Sequence[_File], config: HuggingFaceConfig, names: Sequence[str]
) -> list[tuple[str, ...]]:
    """The labels of each row."""
    allowed = frozenset(names)
    if config.indicator_columns:
        columns = [read_indicators(table, name) for name in config.indicator_columns]
        return [split_labels(row, "", allowed) for row in zip(*columns, strict=True)]
    if not any(file.label_names for file in files):
        (cells,) = read_label_columns(table, [config.label_column], config.label_format, names)
        return [split_labels([cell], config.label_separator, allowed) for cell in cells]
    cells = table.columns[config.label_column]
    is_boolean = any(_is_boolean(file.source.schema, config.label_column) for file in files)
    are_vectors = _are_vectors(table, cells, files, config, is_boolean=is_boolean)
    read = labels_of_vector if are_vectors else _labels_of_numbers
    own = (file.label_names for file in files for _ in range(file.table.num_rows))
    return [
        label_texts(read(cell, of_file, f"{table.path}, {table.place(row)}"))
        for row, (cell, of_file) in enumerate(zip(cells, own, strict=True), start=1)
    ]


def _parts(cell: Cell) -> tuple[str, ...]:
    parts = (cell,) if isinstance(cell, str) else cell
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _labels_of_numbers(cell: Cell, names: Sequence[str], where: str) -> tuple[str, ...]:
    """Names of numbered labels."""
    return tuple(_name(number, names, where) for number in _parts(cell) if number != UNKNOWN_LABEL)


def _name(number: str, names: Sequence[str], where: str) -> str:
    if not (number.isdecimal() and len(number) < 10 and int(number) < len(names)):
        raise InputError(
            f"{where}: the label {quote(number)}, expected a whole number below {len(names)}, since there are so many "
            "names",
            "correct the label names; for lists of 0 and 1 for each label set label_format to indicator",
        )
    return names[int(number)]


def _image_reader(source: Path, files: Sequence[_File], column: str) -> Callable[[RawItem], bytes | None]:
    folder = AnySpelling(ImageFolder(source))
    images = _ImageColumn(files, column)

    def read(item: RawItem) -> bytes | None:
        cell = images.cell(item.row)
        if isinstance(cell, dict):
            cell = cell["bytes"] or cell.get("path") or ""
        if cell is None or isinstance(cell, bytes):
            return cell
        encoded: bytes | None = folder.read(cell)
        if encoded is None and Path(cell).is_absolute():  # as `save_to_disk` leaves images that were files
            raise ImageError(f"the image is at {quote(cell)}, outside of the data set; {WRITE_PARQUET}, images inside")
        return encoded

    return read


class _ImageColumn:
    """The column with the images, of all files; a few row groups are in memory. Safe to use from several threads."""

    def __init__(self, files: Sequence[_File], column: str) -> None:
        self._column = column
        self._groups = [(file.source, group) for file in files for group in range(len(file.source.group_sizes))]
        self._starts = [0, *accumulate(size for file in files for size in file.source.group_sizes)]
        self._held: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def cell(self, row: int) -> Any:
        """What is in a row, from 1."""
        group = bisect_right(self._starts, row - 1) - 1
        try:
            return self._read(group)[row - 1 - self._starts[group]].as_py()
        except UnicodeDecodeError as error:
            raise ImageError("its path is not valid UTF-8") from error

    def _read(self, group: int) -> pa.ChunkedArray:
        with self._lock:
            if group not in self._held:
                file, number = self._groups[group]
                self._held[group] = file.read_group(number, self._column)
                while len(self._held) > GROUPS_HELD and sum(held.nbytes for held in self._held.values()) > BYTES_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(group)
            return self._held[group]
