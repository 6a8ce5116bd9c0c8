"""The journal of image checks: results in files that only grow, so that none is lost and none is made twice."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.ingest.near_copies import TILES, Fingerprint
from dagnn_core.data.raw import Reason
from dagnn_core.disk import writing

BLOCK_ITEMS = 512  # at most so many checks are lost; a block costs a call that waits for the disk
_PRINT = np.dtype([("hash", "<u8"), ("tiles", "u1", (TILES * TILES * 3,))])
_NO_PRINT = Fingerprint(0, np.zeros(TILES * TILES * 3, np.uint8))


class UnusableImage(NamedTuple):
    """Why an image cannot be used."""

    reason: Reason
    detail: str


class CheckJournal:
    """Results of checks in the order of the items; a block of them is on disk before the next one begins.

    A line holds how many items are checked, and the faults among those since the line before: `{"num_checked": 1024,
    "faults": [[index, reason, detail], ...]}`. The fingerprints, where they are wanted, lie in a file beside it, which
    is written first. Use it as a context manager.

    Args:
        path: of the file; it may be there.
        fingerprints: whether to keep them. What was checked without them is checked again.
    """

    def __init__(self, path: Path, *, fingerprints: bool = False) -> None:
        self._path = path
        self.num_checked = 0
        self.faults: dict[int, UnusableImage] = {}
        """Index of an item -> what is wrong with its image."""
        self._pending: list[tuple[int, Reason, str]] = []
        self._pending_prints: list[Fingerprint] = []
        self._num_pending = 0
        self._prints_path = path.with_suffix(".prints") if fingerprints else None
        end = self._read()
        if self._prints_path is not None:
            with self._prints_path.open("ab") as prints:
                if prints.tell() < self._prints_size:
                    self.num_checked, self.faults, end = 0, {}, 0
                prints.truncate(self._prints_size)
        self._stream = path.open("ab", buffering=0)
        self._stream.truncate(end)

    def __enter__(self) -> "CheckJournal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stream:
            if error is None:
                self._flush()

    def record(self, fault: UnusableImage | None, fingerprint: Fingerprint | None = None) -> None:
        """Take the result of the next item.

        Args:
            fault: None: nothing is wrong.
            fingerprint: of its image; None: it has none, or it is not wanted.
        """
        if fault is not None:
            self.faults[self.num_checked] = fault
            self._pending.append((self.num_checked, *fault))
        if self._prints_path is not None:
            self._pending_prints.append(fingerprint or _NO_PRINT)
        self.num_checked += 1
        self._num_pending += 1
        if self._num_pending == BLOCK_ITEMS:
            self._flush()

    @property
    def fingerprints(self) -> NDArray[np.void]:
        """`hash` and `tiles` of all checked items, once the block has ended, [N]; zeros where an item has none.

        They are memory-mapped, so that memory does not grow with them.
        """
        if self._prints_path is None or not self.num_checked:
            return np.zeros(0, _PRINT)
        return np.memmap(self._prints_path, _PRINT, "r", shape=(self.num_checked,))

    @property
    def _prints_size(self) -> int:
        return self.num_checked * _PRINT.itemsize

    def _flush(self) -> None:
        if not self._num_pending:
            return
        line = json.dumps({"num_checked": self.num_checked, "faults": self._pending}) + "\n"
        if self._prints_path is not None:
            with writing(self._prints_path), self._prints_path.open("ab") as prints:
                prints.write(np.array(self._pending_prints, _PRINT).tobytes())
                prints.flush()
                os.fsync(prints.fileno())
        with writing(self._path):
            self._stream.write(line.encode())
            os.fsync(self._stream.fileno())
        self._pending, self._pending_prints, self._num_pending = [], [], 0

    def _read(self) -> int:
        """Take over what is there, and return where it ends: before a line that was torn when its writer was killed."""
        end = 0
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        for line in lines:
            try:
                block = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self.num_checked = block["num_checked"]
            self.faults |= {index: UnusableImage(Reason(reason), detail) for index, reason, detail in block["faults"]}
            end += len(line)
        return end
