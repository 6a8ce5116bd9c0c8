"""Vectors of images and texts, kept from run to run in shards: what is finished is never computed again.

A folder for each key, in it one safetensors file for every `SHARD_ROWS` rows, with the sha256 of its values and its own
place: one that is damaged or lies elsewhere is computed again. A file appears by a rename, whole or not at all, so a
kill costs the shard in the making, and runs at the same time do not disturb each other. All of it may be deleted
at any time.

# D dimension of the vectors
"""

import hashlib
import logging
import math
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from dagnn_core.artifacts import canonical_json
from dagnn_core.data.dataset import Dataset
from dagnn_core.disk import writing
from dagnn_core.errors import BackendError

log = logging.getLogger(__name__)

SHARD_ROWS = 512  # about half a minute of a small vision transformer on two CPU cores

_PLACE = "place"

Vectors = NDArray[np.float32]


class Part(NamedTuple):
    """What one of several tasks computes: shards that lie side by side, so that it reads few of the data files."""

    number: int
    """From 0."""
    num_parts: int

    def rows(self, num_rows: int) -> range:
        """The rows of its shards, of so many in all; none where there are fewer shards than parts."""
        size, rest = divmod(math.ceil(num_rows / SHARD_ROWS), self.num_parts)
        first = self.number * size + min(self.number, rest)
        last = first + size + (self.number < rest)
        return range(min(first * SHARD_ROWS, num_rows), min(last * SHARD_ROWS, num_rows))


def data_digests(dataset: Dataset) -> list[str]:
    """What stands for the images and texts of a data set in a key: sha256 of each of its data files."""
    files = dataset.artifact.files
    return [files[name].sha256 for name in sorted(files) if name.startswith("data-")]


def adopt_shards(root: Path, source: Path) -> None:
    """Put the shards of another folder of caches into one, by reference.

    Args:
        root: folder of all caches.
        source: folder of caches that a task has filled its part of; it must stay while the shards are read.

    Raises:
        DiskError: the disk refuses it.
    """
    for file in sorted(source.glob("features/*/shard-*.safetensors")):
        path = root / file.relative_to(source)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # it may refer to a folder that has gone
            path.symlink_to(file.resolve())


class VectorCache:
    """The vectors [N, D] that one key stands for.

    Args:
        root: folder of all caches.
        key: everything that decides the vectors, as JSON values.
        num_rows: N.
        dim: D.
    """

    def __init__(self, root: Path, key: Mapping[str, Any], *, num_rows: int, dim: int) -> None:
        text = canonical_json({**key, "shard_rows": SHARD_ROWS})
        self._folder = root / "features" / hashlib.sha256(text.encode()).hexdigest()
        self._num_rows = num_rows
        self._shards = [range(start, min(start + SHARD_ROWS, num_rows)) for start in range(0, num_rows, SHARD_ROWS)]
        self._dim = dim

    def fill(
        self, compute: Callable[[Sequence[range]], Iterator[Tensor]], *, what: str, part: Part | None = None
    ) -> None:
        """Compute the shards that are not there.

        Args:
            compute: makes the vectors of some shards, given by their rows, in order: float32, on any device. It is not
                called where everything is there.
            what: names the vectors in the log.
            part: the part of the shards that counts; None: all.
        """
        own = part.rows(self._num_rows) if part else range(self._num_rows)
        wanted = [rows for rows in self._shards if rows.start in own]
        missing = [rows for rows in wanted if self._read(rows) is None]
        num_rows, num_missing = (sum(map(len, shards)) for shards in (wanted, missing))
        if num_missing < num_rows:
            log.info("%s: %d of %d rows from the cache %s", what, num_rows - num_missing, num_rows, self._folder)
        if not missing:
            return
        # a thread takes vectors from the device and waits for the disk, so that the next ones are computed meanwhile
        with ThreadPoolExecutor(max_workers=1) as disk:
            writes: deque[Future[None]] = deque()
            for rows, vectors in zip(missing, compute(missing), strict=True):
                writes.append(disk.submit(self._write, rows, vectors))
                if len(writes) > 1:
                    writes.popleft().result()
            writes.pop().result()

    def blocks(self) -> Iterator[Vectors]:
        """All vectors in order, a shard at a time, after `fill`.

        Raises:
            BackendError: a shard went away or was damaged meanwhile.
        """
        for rows in self._shards:
            vectors = self._read(rows)
            if vectors is None:
                raise BackendError(f"{self._path(rows)} was removed or damaged while it was in use", "run again")
            yield vectors

    def _path(self, rows: range) -> Path:
        return self._folder / f"shard-{rows.start // SHARD_ROWS:05d}.safetensors"

    def _read(self, rows: range) -> Vectors | None:
        """The vectors of a shard; None where they are not there, or damaged, which is logged."""
        path = self._path(rows)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                vectors: Vectors = file.get_tensor("vectors")
                header = file.metadata()
            place = header.get(_PLACE, _place(path))  # caches of older programs do not say it
            whole = (header["sha256"], place) == (_sha256(vectors), _place(path))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("%s cannot be read (%s): its vectors are computed again", path, error)
            return None
        if not whole or vectors.shape != (len(rows), self._dim) or vectors.dtype != np.float32:
            log.warning("%s is damaged: its vectors are computed again", path)
            return None
        return vectors

    def _write(self, rows: range, vectors: Tensor) -> None:
        values = vectors.cpu().numpy()
        path = self._path(rows)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")  # another run may be writing the same shard
        try:
            with writing(path, need=values.nbytes), temporary.open("wb") as stream:
                stream.write(save({"vectors": values}, metadata={"sha256": _sha256(values), _PLACE: _place(path)}))
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _place(path: Path) -> str:
    """Names of the folder and the file, which stand for the key and the rows."""
    return f"{path.parent.name}/{path.name}"


def _sha256(values: Vectors) -> str:
    return hashlib.sha256(values.data).hexdigest()
