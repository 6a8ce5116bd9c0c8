"""What the JSON files of artifacts hold: shapes that are checked whenever one is read, as those of the parameters are.

A key may be absent, since older programs did not write all of them: who needs one asks for it. What is there has the
shape that is stated here; keys that are not stated here are passed over.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from dagnn_core.errors import ArtifactError

T = TypeVar("T")

MAX_SHOWN = 80  # characters of a wrong value in a message


def _check_file_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name or len(name) > MAX_FILE_NAME:
        raise ValueError("not a path within the artifact")
    return name


MAX_FILE_NAME = 255
Number = Annotated[int, Field(ge=0)]
Dim = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, AfterValidator(_check_file_name)]

_SHAPE = ConfigDict(strict=True, allow_inf_nan=False)
_WHOLE = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


@dataclass(frozen=True, kw_only=True, slots=True, config=_WHOLE)
class FileRecord:
    """Size in bytes and sha256 (hexadecimal) of one file."""

    size: Number
    sha256: Digest


@dataclass(frozen=True, kw_only=True, slots=True, config=_WHOLE)
class Manifest:
    """A `manifest.json`; `manifest_digest` is there from schema version 3 on."""

    schema_version: Literal[2, 3]
    kind: str
    content: dict[str, Any]
    files: dict[FileName, FileRecord]
    content_digest: Digest
    provenance: dict[str, Any]
    manifest_digest: Digest | None = None


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class Git:
    """The commit of the code that made an artifact."""

    commit: str = ""
    dirty: bool = False
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class Provenance:
    """Where an artifact came from."""

    step: str = ""
    params: Mapping[str, dict[str, Any]] = Field(default_factory=dict)
    ancestors: Mapping[str, str] = Field(default_factory=dict)
    origins: "Mapping[str, Provenance]" = Field(default_factory=dict)
    uris: Mapping[str, str] = Field(default_factory=dict)
    raw: dict[str, Any] | None = None
    git: Git = Field(default_factory=Git)
    execution: dict[str, Any] = Field(default_factory=dict)
    packages: Mapping[str, str] = Field(default_factory=dict)
    mlflow_run_id: str = ""


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class Vectors:
    """A matrix of vectors."""

    kind: str = ""
    dim: Number = 0
    dtype: str = ""
    num_zero_vectors: Mapping[str, Number] = Field(default_factory=dict)
    vectors_sha256: Digest = ""


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class Splits:
    """Items of each split."""

    train: Number
    val: Number
    test: Number


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class LabelCounts:
    """Items of each split by label."""

    train: Mapping[str, Number]
    val: Mapping[str, Number]
    test: Mapping[str, Number]


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class DatasetContent:
    """Content of a `dataset`."""

    label_names: tuple[str, ...] = ()
    num_items: Number = 0
    num_rows: Number = 0
    splits: Splits | None = None
    modalities: Mapping[str, Number] = Field(default_factory=dict)
    label_counts: LabelCounts | None = None
    rejected: Mapping[str, Number] = Field(default_factory=dict)
    dropped_labels: Mapping[str, Number] = Field(default_factory=dict)
    unseen_label_names: tuple[str, ...] = ()
    vectors: Mapping[str, Vectors] = Field(default_factory=dict)
    columns: tuple[str, ...] = ()
    layout: str = ""


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class FeaturesContent:
    """Content of `features`."""

    label_names: tuple[str, ...] = ()
    num_items: Number = 0
    unseen_label_names: tuple[str, ...] = ()
    splits: Splits | None = None
    image: Vectors = Field(default_factory=Vectors)
    text: Vectors = Field(default_factory=Vectors)


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class LabelGraphContent:
    """Content of a `label_graph`."""

    label_names: tuple[str, ...] = ()
    unseen_label_names: tuple[str, ...] = ()
    num_items: Number = 0
    threshold: Share = 0.0
    num_edges: Number = 0
    isolated_labels: tuple[str, ...] = ()
    embedding: Vectors = Field(default_factory=Vectors)


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class ModelContent:
    """Content of a `model`."""

    model: dict[str, Any] = Field(default_factory=dict)
    label_dim: Dim = 1
    threshold: Share = 0.0
    image_dim: Dim = 1
    text_dim: Dim = 1
    output_dim: Dim = 1
    label_names: tuple[str, ...] = ()
    image: Vectors = Field(default_factory=Vectors)
    text: Vectors = Field(default_factory=Vectors)


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class ReportedData(DatasetContent):
    """The data set that a report is about."""

    splits: Splits
    label_counts: LabelCounts
    rejected: Mapping[str, Number]
    content_digest: str
    raw: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class ReportContent:
    """Content of a `report`."""

    metrics: Mapping[str, float] = Field(default_factory=dict)
    num_test: Number = 0
    data: ReportedData | None = None


@dataclass(frozen=True, kw_only=True, slots=True, config=_SHAPE)
class ModelFile:
    """`model.json`, in which every key is needed."""

    model: dict[str, Any]
    label_dim: Dim
    threshold: Share
    image_dim: Dim
    text_dim: Dim
    label_names: Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class IndexModel:
    """The model that made an index."""

    digest: Digest
    kind: str
    label_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class Cells:
    """Parameters of an inverted file, and what they reach."""

    read: Dim
    recall_at_10: Share
    num_queries: Number


@dataclass(frozen=True, kw_only=True, config=_SHAPE)
class IndexContent:
    """Content of an `index`; a shard of one that is being built has the first three only."""

    model: IndexModel
    num_items: Number
    dim: Dim
    num_images: Number = 0
    num_texts: Number = 0
    num_rejected: Number = 0
    dtype: Literal["float32", "float16"] = "float32"
    exact_limit: Dim = 1
    recall: Share = 1.0
    columns: tuple[str, ...] = ()
    cells: Mapping[Literal["image", "text"], Cells] = Field(default_factory=dict)


_StrictNumber = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Metrics: Any = dict[str, _StrictNumber]
_History: Any = Annotated[list[_Metrics], Field(min_length=1)]

CONTENTS: Mapping[str, type[Any]] = {
    "dataset": DatasetContent,
    "features": FeaturesContent,
    "label_graph": LabelGraphContent,
    "model": ModelContent,
    "report": ReportContent,
    "index": IndexContent,
}
"""Kind of artifact -> what its manifest says about the files."""


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON, in UTF-8.

    Raises:
        ValueError: it is something else, or nested too deep, or a number is not finite or too long.
    """
    try:
        return json.loads(
            text if isinstance(text, str) else text.decode(), parse_float=_finite, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def parse_shape(kind: type[T], value: object, key: str = "") -> T:
    """Check that a parsed JSON value has a shape.

    Args:
        kind: the shape: a class of this module, or a type of plain values.
        value: what `parse_json` gave.
        key: where the value lies in its file, for messages.

    Raises:
        ValueError: it has another; the message says where, what was got and what was expected.
    """
    try:
        parsed: T = TypeAdapter(kind).validate_json(json.dumps(value))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        got = "" if first["type"] == "missing" else f", got {first['input']!r:.{MAX_SHOWN}}"
        place = ".".join(map(str, (*([key] if key else []), *first["loc"])))
        raise ValueError(f"{place or 'the whole'}: {first['msg']}{got}") from error
    return parsed


def read_metrics(path: Path, remedy: str, needed: Iterable[str] = ()) -> dict[str, float]:
    """Read a JSON object of names and finite numbers, such as `metrics.json`.

    Args:
        path: the file.
        remedy: how to rebuild it.
        needed: metrics that it must have.

    Raises:
        ArtifactError: it is something else, or lacks one of them.
    """
    try:
        metrics: dict[str, float] = parse_shape(_Metrics, parse_json(path.read_bytes()))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}), expected an object of metrics", remedy) from error
    lacking = [name for name in needed if name not in metrics]
    if lacking:
        raise ArtifactError(f"{path} has no {lacking[0]}, expected it among the metrics", remedy)
    return metrics


def read_history(path: Path, remedy: str) -> list[dict[str, float]]:
    """Read `history.jsonl`: an object of names and finite numbers for each epoch.

    Raises:
        ArtifactError: it is something else, or has no epoch.
    """
    try:
        lines = [parse_json(line) for line in path.read_bytes().splitlines()]
        history: list[dict[str, float]] = parse_shape(_History, lines)
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}), expected a line for each epoch", remedy) from error
    return history


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text:.{MAX_SHOWN}} is not finite")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"the number {text} is not finite")
