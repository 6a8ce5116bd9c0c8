"""Precomputed vectors that come with raw data, such as an `.npz` file with `ids` [N] and `features` [N, dim]."""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dagnn_core.arrays import read_npz
from dagnn_core.disk import writing
from dagnn_core.errors import InputError
from dagnn_core.text import quote

BLOCK_ROWS = 4096  # rows that are looked at together

_EXPECTED = "expected an .npz file with `ids` [N] and `features` [N, dim]"


@dataclass(frozen=True, slots=True)
class PrecomputedVectors:
    """Feature vectors by id."""

    path: Path
    row_of: dict[str, int]
    features: NDArray[np.floating[Any]]
    """[N, dim], float16 or float32."""
    not_finite: frozenset[str]
    """Ids whose vector has NaN or infinity."""

    def rows_of(self, ids: Sequence[str | None]) -> NDArray[np.int64]:
        """Rows of some ids in `features`; -1 for None."""
        return np.array([-1 if item_id is None else self.row_of[item_id] for item_id in ids], dtype=np.int64)

    def of(self, ids: Sequence[str | None]) -> NDArray[np.floating[Any]]:
        """The vectors of some ids, [len(ids), dim]; zeros for None."""
        return take_rows(self.features, self.rows_of(ids))


def take_rows(matrix: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Some rows of a matrix, which may be memory-mapped, [len(rows), dim]; zeros for -1."""
    taken: NDArray[Any] = matrix[np.maximum(rows, 0)]
    taken[rows < 0] = 0
    return taken


def write_matrix(path: Path, blocks: Iterable[NDArray[Any]], *, shape: Sequence[int], dtype: DTypeLike) -> None:
    """Write an `.npy` file, given by its rows or by blocks of rows, without ever holding it in memory.

    By plain writes: where the disk is full they raise an error, a memory map kills the process.

    Raises:
        DiskError: the disk refuses it.
    """
    stored = np.dtype(dtype).newbyteorder("<")
    header = {"descr": np.lib.format.dtype_to_descr(stored), "fortran_order": False, "shape": tuple(shape)}
    with writing(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=stored).data)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an `.npy` file of an array.

    Raises:
        DiskError: the disk refuses it.
    """
    with writing(path, need=array.nbytes), path.open("w+b") as file:  # with "wb", numpy would hide the disk's reason
        np.save(file, array, allow_pickle=False)


def read_vectors(path: Path) -> PrecomputedVectors:
    """Read precomputed feature vectors; float64 becomes float32.

    Raises:
        InputError: the file is missing or damaged, has other arrays, shapes or types, or an id twice.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, {_EXPECTED}")
    ids, features = _read_arrays(path)
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise InputError(f"{path}: `ids` is {ids.dtype} {list(ids.shape)}, expected texts or whole numbers [N]")
    if features.ndim != 2 or features.shape[0] != len(ids) or features.shape[1] == 0:
        raise InputError(
            f"{path}: `features` has the shape {list(features.shape)}, expected [{len(ids)}, dim]: a row for each id"
        )
    if features.dtype.kind != "f":
        raise InputError(f"{path}: `features` is {features.dtype}, expected floating-point numbers")
    return precomputed_vectors(path, [str(item_id).strip() for item_id in ids.tolist()], features)


def precomputed_vectors(path: Path, ids: Sequence[str], features: NDArray[Any]) -> PrecomputedVectors:
    """Vectors [N, dim] of these ids; float64 becomes float32, and single bytes the float16 that holds them exactly.

    Raises:
        InputError: an id is there twice.
    """
    if features.dtype.itemsize == 1:
        features = features.astype(np.float16)
    elif features.dtype.kind != "f" or features.dtype.itemsize > np.dtype(np.float32).itemsize:
        with np.errstate(over="ignore"):  # what is too large becomes infinity, and its row is rejected
            features = features.astype(np.float32)
    row_of = {name: row for row, name in enumerate(ids)}
    if len(row_of) < len(ids):
        twice = next(name for row, name in enumerate(ids) if row_of[name] != row)
        raise InputError(
            f"{path}: the id {quote(twice)} is there twice, expected each id once", "remove one of its rows"
        )
    blocks = range(0, len(ids), BLOCK_ROWS)
    finite = [np.isfinite(features[start : start + BLOCK_ROWS]).all(axis=1) for start in blocks]
    is_finite = np.concatenate(finite) if finite else ()
    not_finite = frozenset(item_id for item_id, good in zip(ids, is_finite, strict=True) if not good)
    return PrecomputedVectors(path, row_of, features, not_finite)


def _read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not an .npz file, {_EXPECTED}")
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error})", _EXPECTED) from error
    if not arrays.keys() >= {"ids", "features"}:
        raise InputError(f"{path} holds the arrays {', '.join(arrays) or 'none'}", _EXPECTED)
    return arrays["ids"], arrays["features"]
