"""Files of arrays and columns, whose type, shape and size are checked when they are opened."""

import math
import zipfile
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import DTypeLike, NDArray

from dagnn_core.disk import disk_failure
from dagnn_core.errors import ArtifactError, DagnnError


@contextmanager
def opening(path: Path, remedy: str) -> Iterator[None]:
    """Make whatever a reader raises about a file the error that the file is damaged.

    Args:
        path: what the body reads.
        remedy: how to rebuild it.

    Raises:
        ArtifactError: the file is damaged.
    """
    try:
        yield
    except (DagnnError, MemoryError):
        raise
    except Exception as error:  # of a damaged file the readers raise nearly anything
        if disk_failure(error) is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArtifactError(f"{path} is damaged ({reason[:200]})", remedy) from error


def read_array(
    path: Path, dtype: DTypeLike, shape: Sequence[int | None], *, remedy: str, mapped: bool = False
) -> NDArray[Any]:
    """Read an `.npy` file of plain values; the memory that it takes is no more than the file has.

    Args:
        path: the file.
        dtype: of its values; `np.floating` takes every floating-point type.
        shape: size of each dimension; None takes any.
        remedy: how to rebuild it.
        mapped: leave it on the disk, mapped into memory.

    Raises:
        ArtifactError: it is damaged, or of another type or shape.
    """
    with opening(path, remedy):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or not np.issubdtype(array.dtype, dtype):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        name = dtype.__name__ if isinstance(dtype, type) else str(np.dtype(dtype))
        raise ArtifactError(f"{path} is {array.dtype} {list(array.shape)}, expected {name} [{wanted}]", remedy)
    return array if mapped else np.array(array)


def read_columns(
    path: Path,
    schema: pa.Schema,
    num_rows: int | None,
    *,
    remedy: str,
    without: Sequence[str] = (),
    nullable: Container[str] = (),
    file: RawIOBase | None = None,
) -> pa.Table:
    """Read a Parquet file whose columns are known.

    Args:
        path: the file.
        schema: its columns.
        num_rows: how many rows it has; None: any number.
        remedy: how to rebuild it.
        without: columns that are not read, and may be null.
        nullable: columns that are read, and may be null.
        file: what the file holds, where it is not at `path`.

    Raises:
        ArtifactError: it is damaged, has other columns, types or rows, or a cell is null that must not be.
    """
    with opening(path, remedy):
        found = pq.read_schema(file or path)
        columns, wanted = ([(field.name, field.type) for field in fields] for fields in (found, schema))
        if columns != wanted:
            listed = (", ".join(f"{name} ({kind})" for name, kind in fields) for fields in (columns, wanted))
            raise ArtifactError("{} has the columns {}, expected {}".format(path, *listed), remedy)
        table = pq.read_table(file or path, columns=[name for name in schema.names if name not in without])
        table.validate(full=True)
    if num_rows not in (None, table.num_rows):
        raise ArtifactError(f"{path} has {table.num_rows} rows, expected {num_rows} as its manifest says", remedy)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and name not in nullable:
            raise ArtifactError(f"{path}: column {name} is null in {column.null_count} rows, expected values", remedy)
    return table


def read_npz(path: Path, wanted: Container[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read arrays of an `.npz` file; each takes as much memory as the file has of it, whatever it claims.

    Args:
        path: the file.
        wanted: names of arrays; None: all.

    Raises:
        ValueError: the file is damaged, or holds something else than plain arrays.
    """
    arrays = {}
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as content:
                    claimed = _claimed_bytes(content)
                if claimed > member.file_size:
                    raise ValueError(f"{name} claims {claimed} bytes, but has {member.file_size}")
                if wanted is None or name in wanted:
                    with archive.open(member) as content:
                        arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file zipfile, zlib and numpy raise nearly anything
        if disk_failure(error) is not None:
            raise
        raise ValueError(str(error) or type(error).__name__) from error
    return arrays


def _claimed_bytes(stream: IO[bytes]) -> int:
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the format .npy, expected 1 or 2")
    shape, _, dtype = read(stream)
    return math.prod(shape) * dtype.itemsize
