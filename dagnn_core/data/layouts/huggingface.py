"""Layout `huggingface`: a local folder with the files of a Hugging Face data set, images inside or beside.

The files are Parquet, or Arrow as the library's `save_to_disk` writes it.
"""

import json
import logging
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from dagnn_core.config.dataset import HuggingFaceConfig
from dagnn_core.data.formats.archives import FileState, ImageError, ImageFolder
from dagnn_core.data.formats.cells import Cell
from dagnn_core.data.formats.column_file import ColumnFile, open_columns
from dagnn_core.data.formats.spellings import AnySpelling
from dagnn_core.data.formats.table import Table, open_table
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.labels import (
    HAS_LABEL,
    LACKS_LABEL,
    label_texts,
    read_indicators,
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


class _File(NamedTuple):
    """One file, without its images."""

    split: str
    """Empty where splits are drawn."""
    source: ColumnFile
    table: Table
    labels: Sequence[list[Cell]]
    """Columns with labels, one cell a row."""
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
    if not any(file.table.num_rows for file in files):
        raise InputError(f"{source} has files without rows, expected one row per item")
    are_vectors = _are_vectors(source, files, config)
    starts = [0, *accumulate(file.table.num_rows for file in files)]

    def place(row: int) -> str:
        number = bisect_right(starts, row - 1) - 1
        return f"{files[number].table.path.relative_to(source)}, row {row - starts[number]}"

    def rows() -> Iterator[RawItem]:
        numbers = Counter[str]()
        for file, start in zip(files, starts, strict=False):
            for item in _items(file, config, frozenset(names), are_vectors=are_vectors):
                numbers[file.split] += 1
                item_id = item.id if config.id_column else f"{file.split or 'row'}-{numbers[file.split]}"
                yield item._replace(row=start + item.row, id=item_id)

    items, rejections = quarantine(rows(), keep_incomplete=keep_incomplete)
    states, folder = [FileState.of(file.table.path) for file in files], AnySpelling(ImageFolder(source))
    order = dict.fromkeys(name for file in files for name in file.label_names or names)
    splits = {file.split for file in files}
    return RawData(
        source=str(source),
        num_rows=starts[-1],
        items=items,
        rejections=rejections,
        image=_image_reader(source, files, config.image_column),
        # an image beside the files whose path a struct names counts as unchanged, since that takes reading the struct
        image_state=lambda item: (states, folder.state(item.image_path)),
        label_order=tuple(order),
        draws_val="test" in splits and "val" not in splits,
        place=place,
    )


def _read_file(path: Path, split: str, config: HuggingFaceConfig, names: tuple[str, ...]) -> _File:
    file = open_columns(path)
    label_columns = list(config.indicator_columns or (config.label_column,))
    keys = {"text_column": config.text_column}
    keys |= {"id_column": config.id_column} if config.id_column else {}
    if config.indicator_columns:
        keys |= {f"indicator_columns[{place}]": name for place, name in enumerate(label_columns)}
    else:
        keys |= {"label_column": config.label_column}
    image_column = config.image_column
    is_inside = image_column in file.schema.names and _is_image(file.schema.field(image_column).type)
    keys |= {} if is_inside else {"image_column": image_column}
    table = open_table(file, {f"dataset.huggingface.{key}": name for key, name in keys.items()})
    if config.indicator_columns:
        labels, names = [read_indicators(table, name) for name in label_columns], ()
    else:
        labels = [table.columns[config.label_column]]
        if _is_number(file.schema, config.label_column):
            names = names or _names_beside(file, config.label_column)
            if not names:
                raise _unnamed(path, config.label_column, file.schema.field(config.label_column).type)
        else:
            names = ()
            if config.label_format == "auto":
                labels = [read_list_column(table, config.label_column)]
    return _File(split, file, table, labels, names, None if is_inside else table.texts(image_column))


def _is_image(kind: pa.DataType) -> bool:
    """Whether a column holds encoded images: alone, or beside their paths."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and (_is_image(field.type) or pa.types.is_null(field.type)) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_number(schema: pa.Schema, column: str) -> bool:
    kind = schema.field(column).type
    kind = getattr(kind, "value_type", kind)
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _unnamed(path: Path, column: str, kind: pa.DataType) -> InputError:
    if pa.types.is_boolean(kind):
        return InputError(
            f"{path}: column {column!r} holds only true and false, which name no label",
            "name one such column for each label in dataset.huggingface.indicator_columns",
        )
    return InputError(
        f"{path}: column {column!r} holds numbers and the schema has no names for them",
        "give a file with the names in dataset.huggingface.label_names",
    )


def _names_beside(file: ColumnFile, column: str) -> tuple[str, ...]:
    """Names of numbered labels that the library `datasets` leaves in the schema, or beside the file."""
    try:
        features = json.loads((file.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError, RecursionError):
        note = read_note(file.path.parent / "dataset_info.json")
        features = note.get("features") if isinstance(note, dict) else None
    return schema_names(features.get(column)) if isinstance(features, dict) else ()


def _are_vectors(source: Path, files: Sequence[_File], config: HuggingFaceConfig) -> bool:
    """Whether the lists of numbers are 0 or 1 for each label, and not the numbers of labels.

    Raises:
        InputError: they may be both.
    """
    numbered = [file for file in files if file.label_names]
    if not numbered or config.label_format == "values":
        return False
    if config.label_format == "indicator":
        return True
    counts = {len(file.label_names) for file in numbered}
    lists = [cell for file in numbered for cell in file.labels[0] if isinstance(cell, tuple) and cell]
    sizes = {len(cell) for cell in lists}
    values = {entry.casefold() for cell in set(lists) for entry in cell}
    if not lists or len(sizes) > 1 or not values <= _BITS | {UNKNOWN_LABEL, ""}:
        return False
    kind = files[0].source.schema.field(config.label_column).type
    repeats = any(len(set(cell)) < len(cell) for cell in set(lists))  # a label's number is in a list once
    if not repeats and sizes != counts and not pa.types.is_boolean(kind.value_type):
        return False
    is_sure = sizes == counts and values <= _BITS
    if is_sure and (repeats or min(sizes) > 2 or pa.types.is_boolean(kind.value_type)):
        log.info("%s: the lists of 0 and 1 in %r are read as one value for each label", source, config.label_column)
        return True
    found, size, number = sorted(values), next(iter(sizes)), " or ".join(map(str, sorted(counts)))
    raise InputError(
        f"{source}: the lists in column {config.label_column!r} all have {size} values, which are only "
        f"{', '.join(map(quote, found))}, and there are {number} label names: is it 0 or 1 for each label, or the "
        "numbers of labels?",
        "set dataset.huggingface.label_format to indicator or to values, and check the label names",
    )


def _items(file: _File, config: HuggingFaceConfig, allowed: Set[str], *, are_vectors: bool) -> Iterator[RawItem]:
    """The rows of a file, numbered from 1 in it; without id where no column has it."""
    columns = file.table.columns
    texts = read_list_column(file.table, config.text_column, allow_bare=False)
    for row in range(1, file.table.num_rows + 1):
        text = " ".join(" ".join(_parts(texts[row - 1])).split())
        cells = [column[row - 1] for column in file.labels]
        if file.label_names:
            read = _labels_of_vector if are_vectors else _labels_of_numbers
            labels = label_texts(read(cells[0], file, row))
        else:
            labels = split_labels(cells, config.label_separator, allowed)
        item_id = " ".join(_parts(columns[config.id_column][row - 1])) if config.id_column else ""
        path = f"{file.table.path.name}#{row}" if file.paths is None else file.paths[row - 1]
        yield RawItem(row, item_id, text, labels, path, file.split, has_text=bool(text))


def _parts(cell: Cell) -> tuple[str, ...]:
    parts = (cell,) if isinstance(cell, str) else cell
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _labels_of_vector(cell: Cell, file: _File, row: int) -> list[str]:
    """Names of the labels whose place in a list of 0 and 1 has a 1; none where the list is missing."""
    values, names = ([] if isinstance(cell, str) else cell), file.label_names
    where = f"{file.table.path}, {file.table.place(row)}"
    if isinstance(cell, str) and cell:
        raise InputError(f"{where}: the label {quote(cell)}, expected a list with 0 or 1 for each label")
    if values and len(values) != len(names):
        raise InputError(
            f"{where}: a list of {len(values)} labels, expected {len(names)}, since there are so many names"
        )
    wrong = next((value for value in values if value.casefold() not in _BITS), None)
    if wrong is not None:
        raise InputError(f"{where}: the value {quote(wrong)} in a list of 0 and 1 for each label, expected 0 or 1")
    return [name for name, value in zip(names, values, strict=False) if value.casefold() in HAS_LABEL]


def _labels_of_numbers(cell: Cell, file: _File, row: int) -> list[str]:
    """Names of numbered labels."""
    return [_name(number, file, row) for number in _parts(cell) if number != UNKNOWN_LABEL]


def _name(number: str, file: _File, row: int) -> str:
    names = file.label_names
    if not (number.isdecimal() and len(number) < 10 and int(number) < len(names)):
        raise InputError(
            f"{file.table.path}, {file.table.place(row)}: the label {quote(number)}, expected a whole number below "
            f"{len(names)}, since there are so many names",
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
        return self._read(group)[row - 1 - self._starts[group]].as_py()

    def _read(self, group: int) -> pa.ChunkedArray:
        with self._lock:
            if group not in self._held:
                file, number = self._groups[group]
                self._held[group] = file.read_group(number, self._column)
                while len(self._held) > GROUPS_HELD and sum(held.nbytes for held in self._held.values()) > BYTES_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(group)
            return self._held[group]
