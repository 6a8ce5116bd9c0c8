"""Files that hold a matrix: MATLAB 5 and 7.3, `.npy`, `.npz`, and sparse ones of MATLAB and SciPy."""

import io
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.errors import InputError

MAX_DEPTH = 6  # of structs and cells in each other

_NO_MEMORY = 3  # exit status of the process that reads MATLAB 5

_SPARSE = "MATLAB_sparse"  # attribute of a sparse matrix in a file of MATLAB 7.3: its number of rows
_MATLAB_NUMBERS = {"double", "single", "logical", "sparse"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def read_matrix(path: Path, name: str = "") -> NDArray[Any]:
    """Read a matrix of numbers; a `.npy` file is mapped into memory.

    Args:
        path: `.mat`, `.npy` or `.npz`.
        name: which of those in a `.mat` or `.npz`, in structs and cells of MATLAB as `S.field` and `C{3}`; empty: the
            only one that has several rows.

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
    import h5py  # noqa: PLC0415 -- 20 MB that other layouts do without

    # MATLAB 7.3 writes HDF5, and so does Python under the same suffix
    return _read_hdf5(path, name) if h5py.is_hdf5(path) else _read_apart(path, name)


def _read_apart(path: Path, name: str) -> NDArray[Any]:
    """Read a file of MATLAB 5 in a process of its own, which SciPy's reader ends at some damaged files."""
    command = [sys.executable, "-P", "-m", __name__, str(path), name]  # -P: no module of the working folder
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode == InputError.exit_status:
        raise InputError(*json.loads(done.stdout))
    if done.returncode == _NO_MEMORY:
        raise MemoryError
    if done.returncode:
        raise InputError(f"{path} is damaged: SciPy's reader of MATLAB 5 files crashes on it", "copy it again")
    matrix: NDArray[Any] = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return matrix


def _main(path: str, name: str) -> int:
    """Write a matrix of a file of MATLAB 5 to the standard output, as `.npy`, or what is wrong with it, as JSON."""
    try:
        matrix = np.ascontiguousarray(_read_matlab5(Path(path), name))
    except MemoryError:
        return _NO_MEMORY
    except InputError as error:
        json.dump([error.what, error.remedy], sys.stdout)
        return error.exit_status
    except Exception as error:  # a damaged file makes SciPy raise nearly anything
        json.dump([f"{path} cannot be read ({type(error).__name__}: {error})", "copy it again"], sys.stdout)
        return InputError.exit_status
    np.lib.format.write_array_header_2_0(sys.stdout.buffer, np.lib.format.header_data_from_array_1_0(matrix))
    sys.stdout.buffer.write(matrix.data)
    return 0


def _read_matlab5(path: Path, name: str) -> NDArray[Any]:
    import scipy.io  # noqa: PLC0415 -- as above
    import scipy.sparse  # noqa: PLC0415

    def load(variable: str) -> Any:
        return scipy.io.loadmat(path, variable_names=[variable], spmatrix=False)[variable]

    listing = scipy.io.whosmat(path)
    tables = {key: None for key, shape, kind in listing if kind in _MATLAB_NUMBERS and _is_table(shape, "f")}
    inside: dict[str, Any] = {}
    for key, _, kind in listing:
        if kind in ("struct", "cell") and name.startswith(key if name else ""):
            found = _inside(key, load(key))
            inside |= {part: value for part, value in found if _is_table(value.shape, value.dtype.kind)}
    others = (f"{key} ({kind} {list(shape)})" for key, shape, kind in listing)
    chosen = _choose(path, name, [*tables, *inside], others)
    matrix = inside[chosen] if chosen in inside else load(chosen)
    if scipy.sparse.issparse(matrix):
        matrix.check_format(full_check=True)  # toarray() writes where the indices say, in the matrix or not
        matrix = matrix.toarray()
    return np.asarray(matrix)


def _inside(name: str, value: Any, depth: int = MAX_DEPTH) -> Iterator[tuple[str, Any]]:
    """The arrays of numbers in a variable of MATLAB 5, as MATLAB names them: `S.field`, `S(2).field`, `C{3}`."""
    kind = getattr(value, "dtype", None)
    if kind is None or not depth:
        return
    if kind.names:
        for number, element in enumerate(value.ravel(order="F"), start=1):
            for field in kind.names:
                yield from _inside(_field(name, field, number, value.size), element[field], depth - 1)
    elif kind.kind == "O":
        for number, element in enumerate(value.ravel(order="F"), start=1):
            yield from _inside(f"{name}{{{number}}}", element, depth - 1)
    else:
        yield name, value


def _field(name: str, field: str, number: int, count: int) -> str:
    return f"{name}.{field}" if count == 1 else f"{name}({number}).{field}"


def _read_hdf5(path: Path, name: str) -> NDArray[Any]:
    import h5py  # noqa: PLC0415 -- as above

    with path.open("rb") as stream:
        # MATLAB stores columns first, behind a block of its own, so that rows and columns change places
        is_matlab = not stream.read(8).startswith(b"\x89HDF")
    with h5py.File(path, "r") as file:
        nodes = {key: node for top in _members(file) for key, node in _inside_hdf5(file, top, file[top])}
        shapes = {key: _hdf5_shape(node, is_matlab) for key, node in nodes.items()}
        tables = [key for key, node in nodes.items() if _is_table(shapes[key], _hdf5_kind(node))]
        others = (f"{key} ({list(shape)})" for key, shape in shapes.items())
        node = nodes[_choose(path, name, tables, others)]
        if isinstance(node, h5py.Group):
            return _read_sparse(path, node)
        matrix: NDArray[Any] = node[()]
        return np.ascontiguousarray(matrix.T if _is_transposed(node, is_matlab) else matrix)


def _members(group: Any) -> list[str]:
    """What lies in this very file: links could lead to any other. Names with # are MATLAB's own."""
    import h5py  # noqa: PLC0415 -- as above

    hard = (key for key in group if isinstance(group.get(key, getlink=True), h5py.HardLink))
    return [key for key in hard if not key.startswith("#")]


def _inside_hdf5(file: Any, name: str, node: Any, depth: int = MAX_DEPTH) -> Iterator[tuple[str, Any]]:
    """The arrays of numbers, dense and sparse, in a variable of MATLAB 7.3, named as in `_inside`."""
    import h5py  # noqa: PLC0415 -- as above

    if not depth:
        return
    if isinstance(node, h5py.Group):
        if _SPARSE in node.attrs:
            yield name, node
            return
        for field in _members(node):
            child = node[field]
            is_array = _is_references(child) and _matlab_class(child) != "cell"  # a struct array keeps each field so
            elements = [file[reference] for reference in child[()].ravel() if reference] if is_array else [child]
            for number, element in enumerate(elements, start=1):
                found = _field(name, field, number, len(elements))
                yield from _inside_hdf5(file, found, element, depth - 1)
    elif _is_references(node):
        for number, reference in enumerate(node[()].ravel(), start=1):
            if reference:
                yield from _inside_hdf5(file, f"{name}{{{number}}}", file[reference], depth - 1)
    elif isinstance(node, h5py.Dataset) and not node.is_virtual and not node.external:  # these lie in other files
        yield name, node


def _is_references(node: Any) -> bool:
    import h5py  # noqa: PLC0415 -- as above

    return isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype) is h5py.Reference


def _matlab_class(node: Any) -> str:
    """What MATLAB calls it; empty where another program has written it."""
    found = node.attrs.get("MATLAB_class", b"")
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def _hdf5_kind(node: Any) -> str:
    """The kind of numbers (numpy's letter); O for texts, and for an empty array, which is stored as its shape."""
    is_numbers = _matlab_class(node) in _MATLAB_NUMBERS | {""} and not node.attrs.get("MATLAB_empty", 0)
    return "O" if not is_numbers else "f" if _SPARSE in node.attrs else str(node.dtype.kind)


def _hdf5_shape(node: Any, is_matlab: bool) -> tuple[int, ...]:
    if _SPARSE in node.attrs:
        return int(node.attrs[_SPARSE]), node["jc"].size - 1
    shape: tuple[int, ...] = node.shape or ()
    return shape[::-1] if _is_transposed(node, is_matlab) else shape


def _is_transposed(node: Any, is_matlab: bool) -> bool:
    return is_matlab or _matlab_class(node) != ""


def _read_sparse(path: Path, group: Any) -> NDArray[Any]:
    """A sparse matrix: values by columns, their rows `ir`, and where each column begins, `jc`."""
    num_rows, begins = int(group.attrs[_SPARSE]), group["jc"][()].astype(np.int64)
    counts = np.diff(begins)
    # MATLAB leaves out both where there is no value at all
    values = group["data"][()] if "data" in group else np.zeros(0)
    rows = group["ir"][()].astype(np.int64) if "ir" in group else np.zeros(0, np.int64)
    is_whole = (counts >= 0).all() and counts.sum() == len(values) == len(rows) and begins[0] == 0
    if not is_whole or (len(rows) and not 0 <= rows.min() <= rows.max() < num_rows):
        raise InputError(f"{path}: the sparse matrix {group.name} is damaged", "copy or save it again")
    matrix = np.zeros((num_rows, len(counts)), bool if _matlab_class(group) == "logical" else values.dtype)
    matrix[rows, np.repeat(np.arange(len(counts)), counts)] = values
    return matrix


def _read_npy(path: Path, name: str) -> NDArray[Any]:
    if name:
        raise InputError(f"{path}#{name}: a .npy file holds one matrix without a name", f"remove #{name}")
    with path.open("rb") as stream:
        _refuse_objects(path, _npy_header(stream).kind)
    return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))


class _Header(NamedTuple):
    """What an array of NumPy is like."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def kind(self) -> str:
        """The kind of its numbers (numpy's letter)."""
        return "O" if self.dtype.hasobject else self.dtype.kind


def _npy_header(stream: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)  # version 3 differs in its coding alone, of names of fields
    return _Header(shape, dtype)


def _refuse_objects(path: Path, kind: str) -> None:
    if kind == "O":
        raise InputError(
            f"{path} holds Python objects, which are never read, since reading them can run a program",
            "save the numbers alone, as numpy.asarray(rows, dtype=float)",
        )


def _read_npz(path: Path, name: str) -> NDArray[Any]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        if {"format", "shape", "data"} <= set(archive.files):
            return _read_scipy_sparse(path, name)
        headers = {}
        for key in archive.files:
            with archive.zip.open(f"{key}.npy") as member:
                headers[key] = _npy_header(member)
        tables = [key for key, header in headers.items() if _is_table(header.shape, header.kind)]
        for header in [headers[name]] if name in headers else [] if tables else headers.values():
            _refuse_objects(path, header.kind)
        others = (f"{key} ({header.dtype} {list(header.shape)})" for key, header in headers.items())
        chosen: NDArray[Any] = archive[_choose(path, name, tables, others)]
        return chosen


def _read_scipy_sparse(path: Path, name: str) -> NDArray[Any]:
    """What `scipy.sparse.save_npz` writes."""
    import scipy.sparse  # noqa: PLC0415 -- as above

    if name:
        raise InputError(f"{path}#{name}: a sparse matrix of SciPy has no name", f"remove #{name}")
    matrix = scipy.sparse.load_npz(path)
    if matrix.format in ("csr", "csc", "bsr"):
        matrix.check_format(full_check=True)
    return np.asarray(matrix.toarray())


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
