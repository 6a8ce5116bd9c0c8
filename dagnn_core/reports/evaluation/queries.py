"""The table of queries in a report, `queries.parquet`: one row for each query, of which all of its metrics are means.

| column | |
|---|---|
| `id`, `direction` | the item, and `i2t` (its image finds texts) or `t2i` |
| `average_precision` ... `recall_at_10` | `dagnn_core.retrieval.metrics.QueryScores`; null: nothing is relevant |
| `partner_rank` | rank of the item's own other half, from 1 |
| `num_relevant` | relevant items in the gallery |
| `labels`, `text`, `text_length` | the item's labels, its text, and the words of it (0: a precomputed vector alone) |
| `brightness` | mean grey value of its image, 0 to 255; null without an image, and of more than 5,000 test items |
| `retrieved`, `cosines` | ids of the first 10 results, and their cosines with the query |
| `column_NAME` | the item's cell in the column NAME of the source, where the data set keeps it |

Shapes: N test items, Q = 2 N queries.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagnn_core.arrays import read_columns
from dagnn_core.artifacts import Artifact, rerun
from dagnn_core.data.dataset import COLUMN_PREFIX, Dataset, with_columns
from dagnn_core.data.images import decoded, map_in_order
from dagnn_core.disk import writing
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.retrieval.directions import DIRECTIONS
from dagnn_core.retrieval.metrics import FirstRanks, QueryScores
from dagnn_core.text import name_first, quote

FILE = "queries.parquet"
NUM_RETRIEVED = 10
DECODED_PIXELS = 64  # of a side, enough for the mean of an image
MAX_DECODED = 5000  # images; of a larger test split, decoding them would take most of the evaluation's time
SCORES = QueryScores._fields
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("direction", pa.string()),
        *((name, pa.float64()) for name in SCORES),
        ("partner_rank", pa.int64()),
        ("num_relevant", pa.int64()),
        ("labels", pa.list_(pa.string())),
        ("text", pa.string()),
        ("text_length", pa.int64()),
        ("brightness", pa.float64()),
        ("retrieved", pa.list_(pa.string())),
        ("cosines", pa.list_(pa.float32())),
    ]
)
NULLABLE = (*SCORES, "brightness")


class QueryPlace(NamedTuple):
    """One query of the table."""

    direction: str
    item: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Queries:
    """The table of queries, opened: item n is row n of everything, in both directions."""

    ids: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]
    text_lengths: NDArray[np.int64]
    """Words, [N]."""
    brightness: NDArray[np.float64]
    """0 to 255, [N]; NaN without an image."""
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    """Name of a score -> direction -> [N]; NaN where nothing is relevant."""
    partner_rank: Mapping[str, NDArray[np.int64]]
    num_relevant: Mapping[str, NDArray[np.int64]]
    retrieved: Mapping[str, Sequence[Sequence[str]]]
    """Direction -> ids of the first results of every query."""
    cosines: Mapping[str, Sequence[Sequence[float]]]
    columns: Mapping[str, Sequence[str]]
    """Column of the source -> its cell of every item, [N]; mostly none."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def average_precision(self) -> Mapping[str, NDArray[np.float64]]:
        """By direction, [N]; NaN where nothing is relevant."""
        return self.scores["average_precision"]

    @property
    def mean_average_precision(self) -> NDArray[np.float64]:
        """Of an item as a query of both directions, [N]; NaN where nothing is relevant."""
        mean: NDArray[np.float64] = np.mean([self.average_precision[direction] for direction in DIRECTIONS], axis=0)
        return mean

    def hardest(self, directions: Iterable[str], label: str | None = None) -> list[QueryPlace]:
        """The queries that have a relevant item, the lowest average precision first.

        Args:
            directions: one, or both.
            label: only queries that carry it; None: all.

        Raises:
            InputError: no test item has the label.
        """
        if label is not None and not any(label in labels for labels in self.labels):
            known = sorted({name for labels in self.labels for name in labels})
            near = difflib.get_close_matches(label, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"those that there are begin with {name_first(known)}"
            raise InputError(f"no test item has the label {quote(label)}", meant)
        places = [
            QueryPlace(direction, item)
            for direction in directions
            for item, score in enumerate(self.average_precision[direction].tolist())
            if not math.isnan(score) and (label is None or label in self.labels[item])
        ]
        return sorted(places, key=lambda place: self.average_precision[place.direction][place.item])

    def label_matrix(self, names: Sequence[str]) -> NDArray[np.uint8]:
        """Which items carry which of some labels, [N, C]."""
        columns = {name: column for column, name in enumerate(names)}
        matrix = np.zeros((len(self), len(names)), dtype=np.uint8)
        for item, labels in enumerate(self.labels):
            matrix[item, [columns[label] for label in labels if label in columns]] = 1
        return matrix

    def take(self, items: NDArray[np.int64]) -> "Queries":
        """Some items, in the order asked for.

        Shape:
            items [M], each below N.
        """
        places = items.tolist()
        return Queries(
            ids=tuple(self.ids[item] for item in places),
            labels=tuple(self.labels[item] for item in places),
            texts=tuple(self.texts[item] for item in places),
            text_lengths=self.text_lengths[items],
            brightness=self.brightness[items],
            scores={
                name: {direction: values[items] for direction, values in by_direction.items()}
                for name, by_direction in self.scores.items()
            },
            partner_rank={direction: ranks[items] for direction, ranks in self.partner_rank.items()},
            num_relevant={direction: counts[items] for direction, counts in self.num_relevant.items()},
            retrieved={direction: [found[item] for item in places] for direction, found in self.retrieved.items()},
            cosines={direction: [found[item] for item in places] for direction, found in self.cosines.items()},
            columns={name: [cells[item] for item in places] for name, cells in self.columns.items()},
        )

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        rows: NDArray[np.int64],
        *,
        scores: Mapping[str, QueryScores],
        first: Mapping[str, FirstRanks],
    ) -> "Queries":
        """Gather what was measured of every query.

        Args:
            dataset: the data set.
            rows: of the test items in it, [N].
            scores: by direction.
            first: the first ranks, by direction; of them as many as the table keeps.
        """
        ids = [dataset.ids[row] for row in rows]
        texts = tuple(dataset.texts[row] for row in rows)
        return cls(
            ids=tuple(ids),
            labels=tuple(
                tuple(dataset.label_names[column] for column in np.flatnonzero(dataset.labels[row])) for row in rows
            ),
            texts=texts,
            text_lengths=np.array([len(text.split()) for text in texts], dtype=np.int64),
            brightness=_brightness(dataset, rows),
            scores={name: {direction: getattr(scores[direction], name) for direction in DIRECTIONS} for name in SCORES},
            partner_rank={direction: first[direction].partner_rank for direction in DIRECTIONS},
            num_relevant={direction: first[direction].num_relevant for direction in DIRECTIONS},
            retrieved={
                direction: [[ids[item] for item in ranking] for ranking in first[direction].order[:, :NUM_RETRIEVED]]
                for direction in DIRECTIONS
            },
            cosines={direction: first[direction].cosine[:, :NUM_RETRIEVED].tolist() for direction in DIRECTIONS},
            columns={name: [cells[row] for row in rows.tolist()] for name, cells in dataset.columns.items()},
        )

    @classmethod
    def read(cls, artifact: Artifact) -> "Queries":
        """Open the table of a report.

        Raises:
            ArtifactError: the report has none, since an older program wrote it, or it is damaged.
        """
        if FILE not in artifact.files:
            raise ArtifactError(
                f"{artifact.path} has no {FILE}: an older program wrote this report", rerun("--force evaluate")
            )
        file = artifact.file(FILE)
        columns = artifact.content.get("data", {}).get("columns", ())
        schema = with_columns(SCHEMA, columns)
        table = read_columns(file, schema, None, remedy=artifact.remedy, nullable=NULLABLE)
        parts = {direction: table.filter(pc.equal(table["direction"], direction)) for direction in DIRECTIONS}
        one, other = (part.select(["id", "labels"]) for part in parts.values())
        if not len(one) or one != other or len(one) + len(other) != len(table):
            raise ArtifactError(
                f"{file}: expected the same items as queries of both directions, at least one", artifact.remedy
            )
        if not set(table["retrieved"].combine_chunks().flatten().to_pylist()) <= set(one["id"].to_pylist()):
            raise ArtifactError(f"{file}: expected test items alone as results", artifact.remedy)
        items = parts["i2t"]
        return cls(
            ids=tuple(items["id"].to_pylist()),
            labels=tuple(map(tuple, items["labels"].to_pylist())),
            texts=tuple(items["text"].to_pylist()),
            text_lengths=items["text_length"].to_numpy(),
            brightness=_numbers(items["brightness"]),
            scores={name: {direction: _numbers(part[name]) for direction, part in parts.items()} for name in SCORES},
            partner_rank={direction: part["partner_rank"].to_numpy() for direction, part in parts.items()},
            num_relevant={direction: part["num_relevant"].to_numpy() for direction, part in parts.items()},
            retrieved={direction: part["retrieved"].to_pylist() for direction, part in parts.items()},
            cosines={direction: part["cosines"].to_pylist() for direction, part in parts.items()},
            columns={name: items[COLUMN_PREFIX + name].to_pylist() for name in columns},
        )

    def write(self, path: Path) -> None:
        """Write the table as Parquet, the images as queries first.

        Raises:
            DiskError: the disk refuses it.
        """
        table = pa.concat_tables([self._table(direction) for direction in DIRECTIONS])
        with writing(path):
            pq.write_table(table, path)

    def _table(self, direction: str) -> pa.Table:
        columns: dict[str, Any] = {
            "id": self.ids,
            "direction": [direction] * len(self),
            **{
                name: pa.array(values[direction], from_pandas=True) for name, values in self.scores.items()
            },  # NaN: null
            "partner_rank": self.partner_rank[direction],
            "num_relevant": self.num_relevant[direction],
            "labels": self.labels,
            "text": self.texts,
            "text_length": self.text_lengths,
            "brightness": _nullable(self.brightness),
            "retrieved": self.retrieved[direction],
            "cosines": self.cosines[direction],
            **{COLUMN_PREFIX + name: cells for name, cells in self.columns.items()},
        }
        return pa.table(columns, schema=with_columns(SCHEMA, self.columns))


def _nullable(numbers: NDArray[np.float64]) -> pa.Array:
    """A column of floats, null where they are NaN."""
    return pa.array(numbers, from_pandas=True)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of floats, NaN where it is null."""
    numbers: NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return numbers


def _brightness(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    if len(rows) > MAX_DECODED:
        return np.full(len(rows), np.nan)
    wanted = np.zeros(len(dataset), dtype=np.bool_)
    wanted[rows] = True
    images = (image for group in dataset.iterate_images(wanted) for image in group)
    found = dict(zip(np.flatnonzero(wanted).tolist(), map_in_order(_grey, images), strict=True))
    return np.array([found[row] for row in rows.tolist()], dtype=np.float64)


def _grey(encoded: bytes | None) -> float:
    if encoded is None:
        return np.nan
    with decoded(encoded, DECODED_PIXELS) as image:
        return float(np.asarray(image.convert("L")).mean())
