"""The journal of image checks: results in files that only grow, so that none is lost and none is made twice."""

import hashlib
import json
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.ingest.near_copies import TILES, Fingerprint
from dagnn_core.data.raw import Reason
from dagnn_core.disk import writing

log = logging.getLogger(__name__)

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
    "faults": [[index, reason, detail], ...]}`, after the sha256 of that and of the checksum of the line before. The
    fingerprints, where they are wanted, lie in a file beside it, which is written first; a line then has the sha256 of
    its own. Use it as a context manager.

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
        self._checksum = ""
        """Of the last line."""
        self._prints_path = path.with_suffix(".prints") if fingerprints else None
        end = self._read()
        if self._prints_path is not None:
            with self._prints_path.open("ab") as prints:
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
        block: dict[str, Any] = {"num_checked": self.num_checked, "faults": self._pending}
        if self._prints_path is not None:
            content = np.array(self._pending_prints, _PRINT).tobytes()
            block["prints"] = hashlib.sha256(content).hexdigest()
            with writing(self._prints_path), self._prints_path.open("ab") as prints:
                prints.write(content)
                prints.flush()
                os.fsync(prints.fileno())
        text = json.dumps(block).encode()
        checksum = _checksum(self._checksum, text)
        with writing(self._path):
            self._stream.write(checksum.encode() + b" " + text + b"\n")
            os.fsync(self._stream.fileno())
        self._checksum = checksum
        self._pending, self._pending_prints, self._num_pending = [], [], 0

    def _read(self) -> int:
        """Take over what is there, and return where it ends: before a line that is damaged, or that a kill has torn."""
        end = 0
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        with ExitStack() as stack:
            prints = None
            if self._prints_path is not None and self._prints_path.exists():
                prints = stack.enter_context(self._prints_path.open("rb"))
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                checksum, _, text = line[:-1].partition(b" ")
                if checksum != _checksum(self._checksum, text).encode():
                    self._warn(f"{self._path}, line {number}")
                    break
                block = json.loads(text)
                if self._prints_path is not None:
                    size = (block["num_checked"] - self.num_checked) * _PRINT.itemsize
                    content = prints.read(size) if prints else b""
                    if "prints" not in block:
                        break
                    if hashlib.sha256(content).hexdigest() != block["prints"]:
                        self._warn(str(self._prints_path))
                        break
                self._checksum = checksum.decode()
                self.num_checked = block["num_checked"]
                faults = block["faults"]
                self.faults |= {index: UnusableImage(Reason(reason), detail) for index, reason, detail in faults}
                end += len(line)
        return end

    def _warn(self, place: str) -> None:
        log.warning("%s is damaged: the images from there on are checked again", place)


def _checksum(before: str, block: bytes) -> str:
    return hashlib.sha256(before.encode() + block).hexdigest()
