"""Reads logs of queries, with what logrotate has made of them; a damaged line is counted and named, and no more."""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.services.serving.query_log import decode_vector
from dagnn_core.errors import InputError
from dagnn_core.text import clip, one_line

MAX_LINE = 1 << 20  # bytes
MAX_MILLISECONDS = 1e9  # eleven days
NUM_NAMED = 3
"""Damaged lines that are named; the others are counted."""
_ROTATED = re.compile(r"[.-](\d[\d.-]*)(?P<gz>\.gz)?")


class ModelName(BaseModel):
    """The model that has answered."""

    name: str | None = None
    version: str | None = None
    digest: str = ""


class LoggedHit(BaseModel):
    """A result."""

    id: str
    score: float


class LoggedQuery(BaseModel):
    """A line of the log; what older services did not write has a default."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    time: str
    kind: Literal["text", "id", "image", "vector"]
    target: Literal["image", "text"]
    milliseconds: Annotated[float, Field(ge=0, le=MAX_MILLISECONDS)]
    model: ModelName
    request: str = ""
    text: str | None = None
    hits: tuple[LoggedHit, ...] = ()
    relevant: bool | None = None
    nearest_labels: dict[str, float] = {}
    expected_labels: float | None = None
    words: Annotated[int, Field(ge=0, le=MAX_LINE)] | None = None
    unknown_words: Annotated[int, Field(ge=0)] | None = None
    embedding: str = ""

    @model_validator(mode="after")
    def _count(self) -> Self:
        if self.words is not None and (self.unknown_words or 0) > self.words:
            raise ValueError(f"{self.unknown_words} of {self.words} words are unknown")
        return self

    @property
    def moment(self) -> datetime:
        """When it was answered.

        Raises:
            ValueError: `time` is no time.
        """
        found = datetime.fromisoformat(self.time)
        try:
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except OverflowError as error:  # in the first or the last year that there is
            raise ValueError(f"{self.time} is no time") from error

    @property
    def vector(self) -> NDArray[np.float32] | None:
        """The query's embedding; None where the log has none.

        Raises:
            ValueError: it is damaged.
        """
        return decode_vector(self.embedding) if self.embedding else None


@dataclass
class Damage:
    """What could not be read."""

    num_lines: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, where: str, why: str) -> None:
        """Count a line, and name one of the first."""
        self.num_lines += 1
        if len(self.examples) < NUM_NAMED:
            self.examples.append(f"{where}: {why}")


def read_queries(paths: Sequence[Path], damage: Damage, *, since: datetime | None = None) -> Iterator[LoggedQuery]:
    """The queries of logs, in the order of the files.

    Args:
        paths: of the logs; what logrotate has made of each (`LOG.1`, `LOG.2.gz`, `LOG-20261129`) is read before it.
        damage: gets what cannot be read.
        since: older ones are left out.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    for path in paths:
        files = log_files(path)
        if not files:
            raise InputError(
                f"{path} does not exist, expected a log of queries", "`dagnn serve --query-log` writes one"
            )
        for file in files:
            for query in _read_file(file, damage):
                if since is None or query.moment >= since:
                    yield query


def log_files(path: Path) -> list[Path]:
    """A log and what logrotate has made of it, by name; of a file and its compressed copy, the file alone."""
    found: dict[str, Path] = {}
    for file in sorted(path.parent.glob(f"{_literal(path.name)}*")):
        match = _ROTATED.fullmatch(file.name.removeprefix(path.name))
        if match and file.is_file():
            found.setdefault(match[1], file)  # without .gz comes first
    return [*found.values(), *([path] if path.exists() else [])]


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _read_file(file: Path, damage: Damage) -> Iterator[LoggedQuery]:
    number = 0
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(_lines(stream), start=1):
                try:
                    query = LoggedQuery.model_validate_json(line)
                    _ = query.moment, query.vector
                except ValidationError as error:
                    first = error.errors(include_url=False, include_input=False)[0]
                    place = ".".join(map(str, first["loc"]))
                    damage.note(f"{file}:{number}", clip(f"{place}: {first['msg']}" if place else first["msg"]))
                except ValueError as error:
                    damage.note(f"{file}:{number}", one_line(error))
                else:
                    yield query
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        damage.note(f"{file}:{number + 1}", f"the file cannot be read on from here ({one_line(error)})")
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})", "correct its path or its permissions") from error


def _lines(stream: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """The lines; one that is too long is cut, and so is damaged."""
    while line := stream.readline(MAX_LINE):
        rest = line
        while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE)
        if line.strip():
            yield line
