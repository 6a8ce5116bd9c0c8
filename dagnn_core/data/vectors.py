"""Ready feature vectors that come with raw data, such as an `.npz` file with `ids` [N] and `features` [N, dim]."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagnn_core.errors import InputError

BLOCK_ROWS = 4096  # rows that are looked at together

_EXPECTED = "expected an .npz file with `ids` [N] and `features` [N, dim]"


@dataclass(frozen=True, slots=True)
class ReadyVectors:
    """Feature vectors by id."""

    path: Path
    row_of: dict[str, int]
    features: NDArray[np.floating[Any]]
    """[N, dim], float16 or float32."""
    not_finite: frozenset[str]
    """Ids whose vector has NaN or infinity."""

    def of(self, ids: Sequence[str | None]) -> NDArray[np.floating[Any]]:
        """The vectors of some ids, [len(ids), dim]; zeros for None."""
        vectors = np.zeros((len(ids), self.features.shape[1]), dtype=self.features.dtype)
        for row, item_id in enumerate(ids):
            if item_id is not None:
                vectors[row] = self.features[self.row_of[item_id]]
        return vectors


def read_vectors(path: Path) -> ReadyVectors:
    """Read ready feature vectors; float64 becomes float32.

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
    return ready_vectors(path, [str(item_id) for item_id in ids.tolist()], features)


def ready_vectors(path: Path, ids: Sequence[str], features: NDArray[Any]) -> ReadyVectors:
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
        raise InputError(f"{path}: the id {twice!r} is there twice, expected each id once; remove one of its rows")
    blocks = range(0, len(ids), BLOCK_ROWS)
    finite = [np.isfinite(features[start : start + BLOCK_ROWS]).all(axis=1) for start in blocks]
    is_finite = np.concatenate(finite) if finite else ()
    not_finite = frozenset(item_id for item_id, good in zip(ids, is_finite, strict=True) if not good)
    return ReadyVectors(path, row_of, features, not_finite)


def _read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not an .npz file, {_EXPECTED}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name in ("ids", "features")}
            listed = ", ".join(archive.files) or "none"
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); {_EXPECTED}") from error
    if len(arrays) < 2:
        raise InputError(f"{path} holds the arrays {listed}; {_EXPECTED}")
    return arrays["ids"], arrays["features"]
