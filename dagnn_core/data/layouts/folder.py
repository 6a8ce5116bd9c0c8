"""Layout `folder`: a table with one row per item, beside a folder or tar of images."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dagnn_core.config.dataset import FolderConfig
from dagnn_core.data.dataset import Modality
from dagnn_core.data.formats.archives import open_images
from dagnn_core.data.formats.table import Table, read_table
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.labels import read_label_columns, read_label_names, read_list_column, split_labels
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.data.splits import read_splits, split_column
from dagnn_core.data.vectors import PrecomputedVectors, read_vectors
from dagnn_core.errors import InputError
from dagnn_core.text import quote

log = logging.getLogger(__name__)


def open_folder(source: Path, config: FolderConfig, *, keep_incomplete: bool = False) -> RawData:
    """Read the table and what lies beside it; images are only indexed.

    Rows are counted from 1, the first row of data (below the header of a CSV file).

    Args:
        source: the folder that all paths of `config` are relative to.
        config: table, columns, images, labels, splits, precomputed vectors.
        keep_incomplete: whether a row without text, or without a precomputed vector, is an item that lacks this
            modality and no fault; there may also be no images at all.

    Raises:
        InputError: a file or column is missing or damaged, a split is unknown, the ids of two files do not match.
    """
    if not source.is_dir():
        raise InputError(f"{source} is not a folder, expected the folder with the table {config.table!r}")
    _check_config(config, keep_incomplete=keep_incomplete)
    table = read_table(source / config.table, _columns(config))
    label_order = read_label_names(source / config.label_names) if config.label_names else ()
    ids = [item_id.strip() for item_id in table.texts(config.id_column)]
    paths = _image_paths(table, ids, config)
    splits = _splits(table, ids, source, config)
    vectors = _vectors(table, ids, source, config)
    images = open_images(source / config.images, source) if config.images else None
    allowed = frozenset(label_order)
    label_columns = read_label_columns(table, config.label_columns, config.label_format, label_order)
    captions = read_list_column(table, config.text_column, allow_bare=False)
    texts = [cell if isinstance(cell, str) else " ".join(filter(None, cell)) for cell in captions]
    kept = {name: table.texts(name) for name in config.keep_columns}
    has_images = bool(config.images or config.image_vectors)

    def rows() -> Iterator[RawItem]:
        for row, (item_id, cell) in enumerate(zip(ids, texts, strict=True), start=1):
            labels = split_labels([column[row - 1] for column in label_columns], config.label_separator, allowed)
            text, split = cell.strip(), splits[row - 1] if splits else ""
            yield RawItem(
                *(row, item_id, text, labels, paths[row - 1], split),
                has_image=has_images,
                has_text=bool(text),
                columns={name: column[row - 1].strip() for name, column in kept.items()},
            )

    items, rejections = quarantine(
        rows(), keep_incomplete=keep_incomplete, vectors=vectors, needs_split=splits is not None
    )
    return RawData(
        source=str(table.path),
        num_rows=table.num_rows,
        items=items,
        rejections=rejections,
        image=None if images is None else lambda item: images.read(item.image_path),
        image_state=None if images is None else lambda item: images.state(item.image_path),
        label_order=label_order,
        vectors=vectors,
        columns=config.keep_columns,
        place=table.place,
    )


def _check_config(config: FolderConfig, *, keep_incomplete: bool) -> None:
    if not config.images and not config.image_vectors and not keep_incomplete:
        raise InputError(
            "dataset.folder has neither images nor image_vectors, expected at least one: name the folder or tar "
            "with the images, or an .npz file with precomputed vectors (dataset.incomplete: keep takes texts alone)"
        )
    if config.images and not config.image_column and "{id}" not in config.image_pattern:
        raise InputError(
            f"dataset.folder.image_pattern must contain {{id}}, got {config.image_pattern!r}",
            "write for example '{id}.jpg', or set dataset.folder.image_column",
        )
    if config.split_column and config.splits:
        raise InputError("dataset.folder has both split_column and splits, expected one of them", "remove the other")


def _columns(config: FolderConfig) -> dict[str, str]:
    optional = {"split_column": config.split_column, "image_column": config.image_column if config.images else ""}
    columns = {"id_column": config.id_column, "text_column": config.text_column}
    columns |= {key: name for key, name in optional.items() if name}
    columns |= {f"label_columns[{place}]": name for place, name in enumerate(config.label_columns)}
    columns |= {f"keep_columns[{place}]": name for place, name in enumerate(config.keep_columns)}
    return {f"dataset.folder.{key}": name for key, name in columns.items()}


def _image_paths(table: Table, ids: Sequence[str], config: FolderConfig) -> list[str]:
    if not config.images:
        return [""] * len(ids)
    if config.image_column:
        return table.texts(config.image_column)
    return [config.image_pattern.replace("{id}", item_id) for item_id in ids]


def _splits(table: Table, ids: Sequence[str], source: Path, config: FolderConfig) -> list[str] | None:
    if config.split_column:
        return split_column(table, config.split_column)
    if not config.splits:
        return None
    split_of = read_splits(source / config.splits)
    _check_ids(table, ids, source / config.splits, split_of)
    return [split_of.get(item_id, "") for item_id in ids]


def _vectors(
    table: Table, ids: Sequence[str], source: Path, config: FolderConfig
) -> dict[Modality, PrecomputedVectors]:
    files: dict[Modality, str] = {"image": config.image_vectors, "text": config.text_vectors}
    vectors = {modality: read_vectors(source / name) for modality, name in files.items() if name}
    for found in vectors.values():
        _check_ids(table, ids, found.path, found.row_of)
    return vectors


def _check_ids(table: Table, ids: Sequence[str], path: Path, others: Mapping[str, object]) -> None:
    strangers = others.keys() - set(ids)
    if strangers and len(strangers) == len(others):
        raise InputError(
            f"none of the ids in {path} (such as {quote(next(iter(others)))}) is in {table.path} "
            f"(such as {quote(ids[0])})",
            "expected the same ids in both: check dataset.folder.id_column",
        )
    if strangers:
        log.warning("%d ids of %s are not in %s and are ignored", len(strangers), path, table.path)
