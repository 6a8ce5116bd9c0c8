"""The journal of image checks: results in a file that only grows, so that none is lost and none is made twice."""

import hashlib
import json
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from dagnn_core.data.raw import Reason
from dagnn_core.disk import writing

log = logging.getLogger(__name__)

BLOCK_ITEMS = 512  # at most so many checks are lost; a block costs a call that waits for the disk


class UnusableImage(NamedTuple):
    """Why an image cannot be used."""

    reason: Reason
    detail: str


class CheckJournal:
    """Results of checks in the order of the items; a block of them is on disk before the next one begins.

    A line holds how many items are checked, and the faults among those since the line before: `{"num_checked": 1024,
    "faults": [[index, reason, detail], ...]}`, after the sha256 of that and of the checksum of the line before. Use it
    as a context manager.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.num_checked = 0
        self.faults: dict[int, UnusableImage] = {}
        """Index of an item -> what is wrong with its image."""
        self._pending: list[tuple[int, Reason, str]] = []
        self._num_pending = 0
        self._checksum = ""
        """Of the last line."""
        end = self._read()
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

    def record(self, fault: UnusableImage | None) -> None:
        """Take the result of the next item; None: nothing is wrong."""
        if fault is not None:
            self.faults[self.num_checked] = fault
            self._pending.append((self.num_checked, *fault))
        self.num_checked += 1
        self._num_pending += 1
        if self._num_pending == BLOCK_ITEMS:
            self._flush()

    def _flush(self) -> None:
        if not self._num_pending:
            return
        block = json.dumps({"num_checked": self.num_checked, "faults": self._pending}).encode()
        checksum = _checksum(self._checksum, block)
        with writing(self._path):
            self._stream.write(checksum.encode() + b" " + block + b"\n")
            os.fsync(self._stream.fileno())
        self._checksum = checksum
        self._pending, self._num_pending = [], 0

    def _read(self) -> int:
        """Take over what is there, and return where it ends: before a line that was torn when its writer was killed."""
        end = 0
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            checksum, _, text = line[:-1].partition(b" ")
            if checksum != _checksum(self._checksum, text).encode():
                log.warning("%s, line %d is damaged: the images from there on are checked again", self._path, number)
                break
            self._checksum = checksum.decode()
            block = json.loads(text)
            self.num_checked = block["num_checked"]
            self.faults |= {index: UnusableImage(Reason(reason), detail) for index, reason, detail in block["faults"]}
            end += len(line)
        return end


def _checksum(before: str, block: bytes) -> str:
    return hashlib.sha256(before.encode() + block).hexdigest()
