"""The log of queries: one JSON object a line, without images and without who asked."""

import base64
import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.services.serving.metrics import Metrics
from components.services.serving.queries import Asked
from dagnn_core.errors import InputError
from dagnn_core.search.index import Query

log = logging.getLogger(__name__)


class QueryLog:
    """Appends whole lines to a file; a disk that is full costs lines, not answers.

    A file that was moved or removed, as logrotate does it, is made again.

    Args:
        path: the file, which is made where it does not exist.
        metrics: where lost lines are counted.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path, self._metrics = path, metrics
        self._lock = threading.Lock()
        self._is_failing = False
        try:
            self._file = self._open()
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror})", "correct --query-log") from error

    def write(self, record: dict[str, Any]) -> None:
        """Append a record."""
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            try:
                self._follow()
                size = os.fstat(self._file).st_size
                if (written := os.write(self._file, line)) < len(line):
                    os.ftruncate(self._file, size)
                    raise OSError(f"{written} of {len(line)} bytes were written")
            except OSError as error:
                self._metrics.log_failures.inc()
                if not self._is_failing:
                    log.warning("%s lacks queries for now: %s", self._path, error)
                self._is_failing = True
            else:
                self._is_failing = False

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _follow(self) -> None:
        """Open the file again where the path names another one by now, or none."""
        try:
            is_same = os.path.samestat(self._path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            is_same = False
        if not is_same:
            newer = self._open()
            os.close(self._file)
            self._file = newer


class Words(NamedTuple):
    """How many words a text has, and how many of them the model does not know; None for a model without vocabulary."""

    words: int | None
    unknown_words: int | None


def record_of(
    asked: Asked, query: Query | None, answer: dict[str, Any], words: Words, *, milliseconds: float, request: str
) -> dict[str, Any]:
    """What the log says of a query; `docs/search.md` describes the fields.

    Args:
        asked: the query as it came.
        query: the same, embedded; None: the model could not.
        answer: what was found.
        words: of a text.
        milliseconds: to embed and search.
        request: its name.
    """
    options, probabilities = asked.options, query.probabilities if query else None
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request": request,
        "kind": asked.kind,
        "text": asked.value if asked.kind == "text" else None,
        "id": asked.value if asked.kind == "id" else None,
        "target": asked.target,
        "k": options.k,
        "labels": options.labels,
        "filters": options.filters,
        "min_score": options.min_score,
        "hits": [{"id": hit["id"], "score": round(hit["score"], 6)} for hit in answer["hits"]],
        "relevant": answer["relevant"],
        "nearest_labels": {name: round(share, 4) for name, share in answer["nearest_labels"].items()},
        "expected_labels": None if probabilities is None else round(float(probabilities.sum()), 4),
        **words._asdict(),
        "embedding": encode_vector(query.vector) if query else "",
        "milliseconds": round(milliseconds, 3),
        "model": answer["model"],
        "index": answer["index"],
    }


def encode_vector(vector: NDArray[np.floating[Any]]) -> str:
    """A vector as base64 of half precision: 2.7 bytes a dimension, and three digits, which is enough for statistics."""
    return base64.b64encode(np.asarray(vector, dtype="<f2").tobytes()).decode("ascii")


def decode_vector(text: str) -> NDArray[np.float32]:
    """The vector that was encoded.

    Raises:
        ValueError: it is none.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)
