"""Layout `features`: precomputed matrices of vectors and labels, without raw images: MATLAB 5 and 7.3, `.npy`, `.npz`.

Three protocols are at home here: `train_img.mat` ... `test_lab.mat` of the DAGNN authors; one matrix of all rows for
each modality with the splits as ranges of rows, as the hashing literature has it (its query rows are our test split;
its database is not needed, since our gallery is the test split itself); and any matrices, with drawn splits.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.dataset import MatricesConfig
from dagnn_core.data.dataset import SPLITS, Modality
from dagnn_core.data.formats.matrix_file import read_matrix
from dagnn_core.data.ingest.quarantine import quarantine
from dagnn_core.data.labels import read_label_names
from dagnn_core.data.raw import RawData, RawItem
from dagnn_core.data.vectors import PrecomputedVectors, precomputed_vectors
from dagnn_core.errors import InputError

_OUTSIDE = "outside"  # instead of a split, for rows that are in none


class _Rows(NamedTuple):
    """The rows of one file of each kind."""

    split: str
    """Empty where one file has all rows."""
    labels: NDArray[Any]
    text: NDArray[Any]
    image: NDArray[Any] | None


def open_matrices(source: Path, config: MatricesConfig, *, keep_incomplete: bool = False) -> RawData:
    """Read the matrices.

    Args:
        source: the folder that all paths of `config` are relative to.
        config: files, names of columns, rows of the splits.
        keep_incomplete: whether a row whose text has no word is an item that lacks its text; there may also be no image
            vectors at all.

    Raises:
        InputError: a file is missing or damaged, or has no matrix of the shape and values expected.
    """
    if not config.image and not keep_incomplete:
        raise InputError(
            "dataset.features.image is empty, expected a file with image vectors (dataset.incomplete: keep takes texts "
            "alone)"
        )
    parts = [_read_part(source, config, split) for split in _splits_with_files(source, config)]
    numbers = [(part.split, row) for part in parts for row in range(1, len(part.labels) + 1)]
    ids = [f"{split}-{row}" if split else str(row) for split, row in numbers]
    splits = _row_splits(config, [split for split, _ in numbers])
    labels = _stack(source / config.labels, [part.labels for part in parts])
    text = _stack(source / config.text, [part.text for part in parts])
    images = [part.image for part in parts if part.image is not None]
    vectors: dict[Modality, PrecomputedVectors] = {"text": precomputed_vectors(source / config.text, ids, text)}
    if images:
        path = source / config.image
        vectors["image"] = precomputed_vectors(path, ids, _stack(path, images))
    names = _label_names(source, config, labels.shape[1])
    words = _text_names(source, config, text.shape[1])

    def rows() -> Iterator[RawItem]:
        for row, (item_id, split) in enumerate(zip(ids, splits, strict=True)):
            if split == _OUTSIDE:
                continue
            own = tuple(names[column] for column in np.flatnonzero(labels[row]))
            item_text = " ".join(words[column] for column in np.flatnonzero(text[row])) if words else ""
            has_text = bool(item_text) or not words
            yield RawItem(row + 1, item_id, item_text, own, "", split, has_image=bool(images), has_text=has_text)

    items, rejections = quarantine(rows(), keep_incomplete=keep_incomplete, vectors=vectors)
    return RawData(
        source=str(source),
        num_rows=len(splits) - splits.count(_OUTSIDE),
        items=items,
        rejections=rejections,
        image=None,
        image_state=None,
        label_order=names,
        draws_val="test" in splits and "val" not in splits,
        vectors=vectors,
    )


def _splits_with_files(source: Path, config: MatricesConfig) -> Sequence[str]:
    """Splits that have files of their own; one without a name where one file has all rows."""
    if "{split}" not in config.labels:
        return ("",)
    has_val = _locate(source, config.labels, "val")[0].is_file()
    return SPLITS if has_val else ("train", "test")


def _locate(source: Path, name: str, split: str) -> tuple[Path, str]:
    """File and name of a matrix."""
    file, _, variable = name.replace("{split}", split).partition("#")
    return source / file, variable


def _read_part(source: Path, config: MatricesConfig, split: str) -> _Rows:
    names = (config.labels, config.text, config.image)
    labels, text, image = (read_matrix(*_locate(source, name, split)) if name else None for name in names)
    assert labels is not None and text is not None, "the configuration wants both"
    path = _name(source, config.labels, split)
    for name, matrix in zip(names, (labels, text, image), strict=True):
        if matrix is not None and len(matrix) != len(labels):
            other = _name(source, name, split)
            raise InputError(
                f"{other} has {len(matrix)} rows, but {path} has {len(labels)}, expected the same items in both, one a "
                f"row{_transposed(other, matrix, path, labels)}"
            )
    wrong = np.argwhere((labels != 0) & (labels != 1))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise InputError(
            f"{path}: {labels[row, column]} in row {row + 1}, column {column + 1}, expected a label matrix of zeros "
            "and ones",
            _zeros_and_ones(labels),
        )
    return _Rows(split, labels, text, image)


def _name(source: Path, name: str, split: str) -> str:
    """What messages call a matrix."""
    file, variable = _locate(source, name, split)
    return f"{file}#{variable}" if variable else str(file)


def _transposed(name: str, matrix: NDArray[Any], path: str, labels: NDArray[Any]) -> str:
    """Which of two matrices has the items as columns, and what to do; empty where neither fits the other so."""
    if matrix.shape[1] == labels.shape[1]:
        which, how = "both have", "them"
    elif matrix.shape[1] == len(labels):
        which, how = f"{name} has", "it"
    elif len(matrix) == labels.shape[1]:
        which, how = f"{path} has", "it"
    else:
        return ""
    return f"; {which} the items as columns, it seems: store {how} transposed (X' in MATLAB, X.T in NumPy)"


def _zeros_and_ones(labels: NDArray[Any]) -> str:
    """How to make zeros and ones of other label matrices that are usual."""
    if np.isin(labels, (-1, 1)).all():
        return "store it as L > 0"
    if labels.shape[1] == 1 and (labels == np.round(labels)).all():
        return "it has class numbers: store a column of zeros and ones for each class"
    return ""


def _stack(path: Path, matrices: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len({matrix.shape[1] for matrix in matrices}) > 1:
        widths = ", ".join(str(matrix.shape[1]) for matrix in matrices)
        raise InputError(f"{path}: the matrices of the splits have {widths} columns, expected as many in each")
    return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)


def _row_splits(config: MatricesConfig, splits: list[str]) -> list[str]:
    """The split of each row, as ranges of rows say, where they are given."""
    if not config.test_rows:
        return splits
    claimed = [""] * len(splits)
    for split, text in (("train", config.train_rows), ("val", config.val_rows), ("test", config.test_rows)):
        for row in _rows_of(text, len(splits), f"dataset.features.{split}_rows"):
            if claimed[row]:
                raise InputError(
                    f"row {row} is in dataset.features.{claimed[row]}_rows and in {split}_rows, expected each row once"
                )
            claimed[row] = split
    rest = _OUTSIDE if config.train_rows else "train"
    return [split or rest for split in claimed]


def _rows_of(text: str, num_rows: int, key: str) -> range:
    if not text:
        return range(0)
    start, stop = (int(part) if part else end for part, end in zip(text.split(":"), (0, num_rows), strict=True))
    if not start < stop <= num_rows:
        raise InputError(f"{key} is {text!r}, expected START:STOP within 0:{num_rows}, the rows of the matrices")
    return range(start, stop)


def _label_names(source: Path, config: MatricesConfig, count: int) -> tuple[str, ...]:
    if not config.label_names:
        digits = len(str(count - 1))
        return tuple(f"label_{number:0{digits}d}" for number in range(count))
    names = read_label_names(source / config.label_names)
    if len(names) != count:
        raise InputError(f"{source / config.label_names} has {len(names)} names, expected {count}, one a label column")
    return names


def _text_names(source: Path, config: MatricesConfig, count: int) -> tuple[str, ...]:
    if not config.text_names:
        return ()
    path = source / config.text_names
    names = read_label_names(path)
    counted = [re.fullmatch(r"(.*\S)\s+\d+", name) for name in names]
    if all(counted):  # MIRFLICKR's common_tags.txt
        names = tuple(match[1] for match in counted if match)
    if len(names) != count:
        raise InputError(f"{path} has {len(names)} names, expected {count}, one for each text column")
    return names
