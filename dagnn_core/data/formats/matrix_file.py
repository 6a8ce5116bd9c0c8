"""Files that hold a matrix: MATLAB 5 and 7.3, `.npy`, `.npz`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dagnn_core.arrays import read_npz
from dagnn_core.errors import InputError

_MATLAB_NUMBERS = {"double", "single", "logical", "sparse"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def read_matrix(path: Path, name: str = "") -> NDArray[Any]:
    """Read a matrix of numbers; a `.npy` file is mapped into memory.

    Args:
        path: `.mat`, `.npy` or `.npz`.
        name: which of those in a `.mat` or `.npz`; empty: the only one that has several rows.

    Raises:
        InputError: the file is missing or damaged, or holds no such matrix, or several.
    """
    readers = {".mat": _read_mat, ".npy": _read_npy, ".npz": _read_npz}
    if path.suffix not in readers:
        raise InputError(f"{path} is not a matrix that can be read, expected {', '.join(readers)}", "convert it")
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a matrix", "correct dataset.source or dataset.features")
    try:
        matrix = readers[path.suffix](path, name)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error})", "copy it again") from error
    if not _is_table(matrix.shape, matrix.dtype.kind):
        raise InputError(
            f"{path} holds {matrix.dtype} {list(matrix.shape)}, expected a matrix of numbers with a row for each item"
        )
    return matrix


def _is_table(shape: Sequence[int], kind: str) -> bool:
    """Whether an array is a matrix with several rows, of a kind of numbers (numpy's letters)."""
    return len(shape) == 2 and shape[0] > 1 and shape[1] > 0 and kind in "fiub"


def _choose(path: Path, name: str, tables: Iterable[str], others: Iterable[str]) -> str:
    found = list(tables)
    if name in found or (not name and len(found) == 1):
        return name or found[0]
    listed = ", ".join(found) or f"none, but {', '.join(others) or 'nothing'}"
    wanted = f"one called {name!r}" if name else "one; name it as FILE#NAME"
    raise InputError(f"{path} holds these matrices with a row for each item: {listed}", f"expected {wanted}")


def _read_mat(path: Path, name: str) -> NDArray[Any]:
    import scipy.io  # noqa: PLC0415 -- 20 MB that other layouts do without
    import scipy.sparse  # noqa: PLC0415

    try:
        listing = scipy.io.whosmat(path)
    except NotImplementedError:  # MATLAB 7.3 writes HDF5
        return _read_hdf5(path, name)
    tables = [key for key, shape, kind in listing if kind in _MATLAB_NUMBERS and _is_table(shape, "f")]
    chosen = _choose(path, name, tables, (f"{key} ({kind} {list(shape)})" for key, shape, kind in listing))
    matrix = scipy.io.loadmat(path, variable_names=[chosen])[chosen]
    return np.asarray(matrix.toarray() if scipy.sparse.issparse(matrix) else matrix)


def _read_hdf5(path: Path, name: str) -> NDArray[Any]:
    import h5py  # noqa: PLC0415 -- as above

    with h5py.File(path, "r") as file:
        # only what lies in this very file: links could lead to any other
        keys = [key for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)]
        arrays = {key: file[key] for key in keys if isinstance(file[key], h5py.Dataset)}
        # MATLAB stores columns first, so rows and columns change places
        tables = [key for key, array in arrays.items() if _is_table(array.shape[::-1], array.dtype.kind)]
        others = (f"{key} ({array.dtype} {list(array.shape)})" for key, array in arrays.items())
        matrix: NDArray[Any] = arrays[_choose(path, name, tables, others)][()]
        return np.ascontiguousarray(matrix.T)


def _read_npy(path: Path, name: str) -> NDArray[Any]:
    if name:
        raise InputError(f"{path}#{name}: a .npy file holds one matrix without a name", f"remove #{name}")
    return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _read_npz(path: Path, name: str) -> NDArray[Any]:
    arrays = read_npz(path)
    tables = [key for key, array in arrays.items() if _is_table(array.shape, array.dtype.kind)]
    others = (f"{key} ({array.dtype} {list(array.shape)})" for key, array in arrays.items())
    chosen: NDArray[Any] = arrays[_choose(path, name, tables, others)]
    return chosen
