"""Layout `huggingface`: a local folder with the Parquet files of a Hugging Face data set, images inside or beside."""

import json
import re
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dagnn_core.config.dataset import HuggingFaceConfig
from dagnn_core.data.formats.archives import FileState, ImageFolder
from dagnn_core.data.formats.table import Cell, Table, read_table
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.labels import read_label_names
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.errors import InputError

UNKNOWN_LABEL = "-1"  # what the library `datasets` writes where a label is not known
GROUPS_HELD = 2  # row groups of images in memory, at least: threads that read ahead meet two of them at a border
BYTES_HELD = 64 << 20  # and more of them while they are small

_SPLIT_NAMES = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
_SPLIT = re.compile(rf"({'|'.join(_SPLIT_NAMES)})([-._].*)?")


class _File(NamedTuple):
    """One Parquet file, without its images."""

    split: str
    """Empty where splits are drawn."""
    table: Table
    label_names: tuple[str, ...]
    """Names of numbered labels; empty where the labels are texts."""
    paths: list[str] | None
    """Paths of the images; None where they are inside."""
    group_sizes: list[int]


def open_huggingface(source: Path, config: HuggingFaceConfig, *, keep_incomplete: bool = False) -> RawData:
    """Read all columns but the images, which are read with their row group when asked for.

    A file's split is in its name (`train-00000-of-00002.parquet`) or in that of its folder; where all of them are
    train, or none has any, splits are drawn.

    Args:
        source: the folder with the files, and folders below it.
        config: columns and label names.
        keep_incomplete: whether a row without text is an item that lacks it and no fault.

    Raises:
        InputError: a file is missing or damaged, or lacks a column; a label has no name.
    """
    names = read_label_names(source / config.label_names) if config.label_names else ()
    files = [_read_file(path, split, config, names) for path, split in _find_files(source).items()]
    starts = [0, *accumulate(file.table.num_rows for file in files)]

    def place(row: int) -> str:
        number = bisect_right(starts, row - 1) - 1
        return f"{files[number].table.path.relative_to(source)}, row {row - starts[number]}"

    def rows() -> Iterator[RawItem]:
        numbers = Counter[str]()
        for file, start in zip(files, starts, strict=False):
            for item in _items(file, config, frozenset(names)):
                numbers[file.split] += 1
                item_id = item.id if config.id_column else f"{file.split or 'row'}-{numbers[file.split]}"
                yield item._replace(row=start + item.row, id=item_id)

    items, rejections = quarantine(rows(), keep_incomplete=keep_incomplete)
    states, folder = [FileState.of(file.table.path) for file in files], ImageFolder(source)
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


def _find_files(source: Path) -> dict[Path, str]:
    """Parquet files -> split, empty where splits are drawn."""
    files = {path: _split_of(path) for path in sorted(source.rglob("*.parquet"))}
    if not files:
        raise InputError(f"{source} has no .parquet file, expected the folder of a Hugging Face data set")
    splits = set(files.values())
    if "" in splits and len(splits) > 1:
        unnamed = next(path for path, split in files.items() if not split)
        raise InputError(
            f"{unnamed} names no split, though other files do",
            "expected train, validation or test at the start of its name, or as that of its folder",
        )
    return dict.fromkeys(files, "") if splits == {"train"} else files


def _split_of(path: Path) -> str:
    for name in (path.stem, path.parent.name):
        match = _SPLIT.fullmatch(name)
        if match:
            return _SPLIT_NAMES[match[1]]
    return ""


def _read_file(path: Path, split: str, config: HuggingFaceConfig, names: tuple[str, ...]) -> _File:
    schema, group_sizes = _read_schema(path)
    keys = ["text_column", "label_column", *(["id_column"] if config.id_column else [])]
    is_inside = config.image_column in schema.names and _is_image(schema.field(config.image_column).type)
    keys += [] if is_inside else ["image_column"]
    table = read_table(path, {f"dataset.huggingface.{key}": getattr(config, key) for key in keys})
    kind = schema.field(config.label_column).type
    if not pa.types.is_integer(getattr(kind, "value_type", kind)):
        names = ()
    elif not names:
        names = _schema_names(schema, config.label_column)
        if not names:
            raise InputError(
                f"{path}: column {config.label_column!r} holds numbers and the schema has no names for them",
                "give a file with the names in dataset.huggingface.label_names",
            )
    return _File(split, table, names, None if is_inside else table.texts(config.image_column), group_sizes)


def _read_schema(path: Path) -> tuple[pa.Schema, list[int]]:
    try:
        with pq.ParquetFile(path) as file:
            groups = range(file.num_row_groups)
            return file.schema_arrow, [file.metadata.row_group(group).num_rows for group in groups]
    except pa.ArrowException as error:
        raise InputError(f"{path} is not a valid Parquet file ({error})", "copy it again") from error


def _is_image(kind: pa.DataType) -> bool:
    """Whether a column holds encoded images: alone, or beside their paths."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_image(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _schema_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """Names of numbered labels that the library `datasets` leaves in the schema; empty where there are none."""
    try:
        feature: Any = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]
        while isinstance(feature, dict | list) and "names" not in feature:
            feature = feature["feature"] if isinstance(feature, dict) else feature[0]
        names = feature["names"]
        return tuple(map(str, names)) if isinstance(names, list) else ()
    except (TypeError, KeyError, IndexError, ValueError):
        return ()


def _items(file: _File, config: HuggingFaceConfig, allowed: Set[str]) -> Iterator[RawItem]:
    """The rows of a file, numbered from 1 in it; without id where no column has it."""
    columns = file.table.columns
    for row in range(1, file.table.num_rows + 1):
        text = " ".join(" ".join(_parts(columns[config.text_column][row - 1])).split())
        labels = _parts(columns[config.label_column][row - 1])
        if file.label_names:
            labels = tuple(_name(label, file, row) for label in labels if label != UNKNOWN_LABEL)
        elif allowed:
            labels = tuple(label for label in labels if label in allowed)
        item_id = " ".join(_parts(columns[config.id_column][row - 1])) if config.id_column else ""
        path = f"{file.table.path.name}#{row}" if file.paths is None else file.paths[row - 1]
        yield RawItem(row, item_id, text, labels, path, file.split, has_text=bool(text))


def _parts(cell: Cell) -> tuple[str, ...]:
    parts = (cell,) if isinstance(cell, str) else cell
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _name(label: str, file: _File, row: int) -> str:
    if not 0 <= int(label) < len(file.label_names):
        raise InputError(
            f"{file.table.path}, {file.table.place(row)}: the label {label}, expected a number below "
            f"{len(file.label_names)}, since there are so many names"
        )
    return file.label_names[int(label)]


def _image_reader(source: Path, files: Sequence[_File], column: str) -> Callable[[RawItem], bytes | None]:
    folder = ImageFolder(source)
    images = _ImageColumn(files, column)

    def read(item: RawItem) -> bytes | None:
        cell = images.cell(item.row)
        if isinstance(cell, dict):
            cell = cell["bytes"] or cell.get("path") or ""
        return folder.read(cell) if isinstance(cell, str) else cell

    return read


class _ImageColumn:
    """The column with the images, of all files; a few row groups are in memory. Safe to use from several threads."""

    def __init__(self, files: Sequence[_File], column: str) -> None:
        self._column = column
        self._groups = [(file.table.path, group) for file in files for group in range(len(file.group_sizes))]
        self._starts = [0, *accumulate(size for file in files for size in file.group_sizes)]
        self._held: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def cell(self, row: int) -> Any:
        """What is in a row, from 1."""
        group = bisect_right(self._starts, row - 1) - 1
        return self._read(group)[row - 1 - self._starts[group]].as_py()

    def _read(self, group: int) -> pa.ChunkedArray:
        with self._lock:
            if group not in self._held:
                path, number = self._groups[group]
                try:
                    with pq.ParquetFile(path) as file:
                        self._held[group] = file.read_row_group(number, columns=[self._column])[self._column]
                except (pa.ArrowException, OSError) as error:
                    raise InputError(
                        f"{path} is damaged in row group {number + 1} ({error})", "copy it again"
                    ) from error
                while len(self._held) > GROUPS_HELD and sum(held.nbytes for held in self._held.values()) > BYTES_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(group)
            return self._held[group]
