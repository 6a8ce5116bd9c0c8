"""The `index` artifact: the embeddings of a collection, and what a search shows of it.

`items.parquet` (id, text, labels, and one column for each column that items can be filtered by), `image.npy` and
`text.npy` [N, D] (all zero where an item lacks the modality), `thumbnails.npy` (uint8, all thumbnails as JPEG one after
the other) and `thumbnail_ends.npy` [N]; `rejected.parquet` has the rows of the source that could not be indexed. A
large index also has an inverted file of faiss for each modality, `image.faiss` and `text.faiss`.

The manifest names the model by its content digest: the vectors of another model mean nothing here.

# N items, D dimension, C labels, B queries
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagnn_core.arrays import opening
from dagnn_core.artifacts import Artifact, read_artifact
from dagnn_core.data.dataset import Modality
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.model.embedder import TrainedModel
from dagnn_core.search.filters import column_mask, label_mask
from dagnn_core.search.nearest import Mask, Nearest, VectorSearch
from dagnn_core.text import quote

KIND = "index"
ITEMS = "items.parquet"
REJECTED = "rejected.parquet"
MODALITIES: tuple[Modality, Modality] = ("image", "text")
REJECTED_SCHEMA = pa.schema([("row", pa.int64()), ("id", pa.string()), ("reason", pa.string())])
FIXED_COLUMNS = ("id", "text", "labels")
NUM_REASONS = 3
SMALLEST_REASON = 0.05  # labels that carry less of a result are no reason for it


class Hit(NamedTuple):
    """One result of a search."""

    rank: int
    """From 1."""
    row: int
    """Number of the item in the index, from 0."""
    id: str
    score: float
    """The cosine."""
    probability: float | None
    """That query and item share a label, by the model's label probabilities; None where it has none."""
    reasons: tuple[tuple[str, float], ...]
    """The labels that query and item most probably share, each with this probability."""
    text: str
    labels: tuple[str, ...]
    columns: Mapping[str, Any]


class Item(NamedTuple):
    """What an index holds of an item."""

    id: str
    text: str
    labels: tuple[str, ...]
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """A query, embedded.

    Args:
        vector: [D].
        target: the modality that is searched.
        probabilities: of the labels, [C]; None where the model has none.
    """

    vector: NDArray[np.float32]
    target: Modality
    probabilities: NDArray[np.float32] | None


class SearchIndex:
    """An index opened for searching, with the model that made it.

    Args:
        artifact: the index.
        model: the model.

    Raises:
        InputError: another model made the index.
        ArtifactError: the files do not fit each other.
    """

    def __init__(self, artifact: Artifact, model: TrainedModel) -> None:
        check_model(artifact, model)
        self.artifact = artifact
        self.model = model
        with pq.ParquetFile(artifact.file(ITEMS)) as file:  # `read_table` would import pandas, too
            self._items = file.read().combine_chunks()
        self.ids: list[str] = self._items["id"].to_pylist()
        self._row_of = {item_id: row for row, item_id in enumerate(self.ids)}
        self._columns = [name for name in self._items.column_names if name not in FIXED_COLUMNS]
        # opened now, as the vectors are: the folder may be replaced while this index is in use
        self._thumbnails, self._thumbnail_ends = self._mapped("thumbnails.npy"), self._mapped("thumbnail_ends.npy")
        self._search = {modality: self._open(modality) for modality in MODALITIES}

    @classmethod
    def read(
        cls, path: Path, model: TrainedModel, *, verify: bool = False, with_thumbnails: bool = True
    ) -> "SearchIndex":
        """Open an index.

        Args:
            path: its folder.
            model: the model that made it.
            verify: check every sha256.
            with_thumbnails: check those of the thumbnails, too: most of the bytes, of which a search alone reads none.

        Raises:
            ArtifactError: it is missing or damaged.
            InputError: another model made it.
        """
        skip = () if with_thumbnails else ("thumbnails.npy",)
        return cls(read_artifact(path, KIND, verify=verify, skip=skip), model)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """All labels of the items, sorted."""
        return tuple(sorted(pc.unique(pc.list_flatten(self._items["labels"])).to_pylist()))

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Label matrix of the items, [N, number of `label_names`]."""
        lists = self._items["labels"]
        labels = pc.index_in(pc.list_flatten(lists), pa.array(self.label_names, pa.string()))
        matrix = np.zeros((len(self), len(self.label_names)), dtype=np.uint8)
        matrix[pc.list_parent_indices(lists).to_numpy(), labels.to_numpy()] = 1
        return matrix

    def text_query(self, text: str, *, target: Modality = "image") -> Query:
        """Embed a text.

        Raises:
            InputError: it is empty, it says nothing to the model, or the model takes precomputed vectors.
        """
        return self.text_queries([text], target=target)[0]

    def text_queries(self, texts: Sequence[str], *, target: Modality = "image") -> list[Query]:
        """Embed several texts at once.

        Raises:
            InputError: as `text_query`, of the first text that cannot be one.
        """
        if not all(map(str.strip, texts)):
            raise InputError("the query is empty, expected a text")
        features = self.model.text_encoder.encode(texts)
        for text, known in zip(texts, np.asarray(features.any(axis=1)), strict=True):
            if not known:
                raise InputError(
                    f"the query {quote(text)} has no word that the model knows",
                    "use other words, such as its labels: " + ", ".join(self.model.label_names[:20]),
                )
        return [self._query(vector, "text", target) for vector in self.model.embed_text_features(features)]

    def image_query(self, image: bytes, *, target: Modality = "text") -> Query:
        """Embed an encoded image (JPEG, PNG ...).

        Raises:
            InputError: it cannot be decoded, or the model takes precomputed vectors.
        """
        return self.image_queries([image], target=target)[0]

    def image_queries(self, images: Sequence[bytes], *, target: Modality = "text") -> list[Query]:
        """Embed several encoded images at once.

        Raises:
            InputError: as `image_query`.
        """
        return [self._query(vector, "image", target) for vector in self.model.encode_images(images)]

    def item_query(self, item_id: str, *, target: Modality = "image") -> Query:
        """Take an item of the index as the query: its vector of the target's modality, else the other.

        Raises:
            InputError: there is no such item.
        """
        row = self.row(item_id)
        modality = target if self._search[target].present[row] else _other(target)
        return self._query(np.asarray(self.vectors(modality)[row], dtype=np.float32), modality, target)

    def vector_query(self, vector: NDArray[np.floating[Any]], modality: Modality, *, target: Modality) -> Query:
        """Take an embedding of the model as the query.

        Raises:
            InputError: it has another dimension, is not finite in float32, or is all zero.
        """
        dim = self.artifact.content["dim"]
        with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite
            single = np.asarray(vector, dtype=np.float32)
        if single.shape != (dim,) or not np.isfinite(single).all() or not single.any():
            raise InputError(
                f"the query vector has shape {list(vector.shape)}, expected {dim} finite numbers, not all zero"
            )
        return self._query(single, modality, target)

    def row(self, item_id: str) -> int:
        """Number of an item.

        Raises:
            InputError: there is no such item.
        """
        if item_id not in self._row_of:
            raise InputError(f"{self.artifact.path} has no item {quote(item_id)}", "check the id")
        return self._row_of[item_id]

    def item(self, row: int) -> Item:
        """What the index holds of an item, by its number."""
        found = {name: self._items[name][row].as_py() for name in self._items.column_names}
        columns = {name: found[name] for name in self._columns}
        return Item(found["id"], found["text"], tuple(found["labels"]), columns)

    def allowed(self, labels: str = "", columns: Sequence[str] = ()) -> Mask | None:
        """Which items may be found, [N]; None for all.

        Args:
            labels: expression over labels, such as `beach and not person`; empty: any.
            columns: conditions `column=value`, all of which must hold.

        Raises:
            InputError: no such expression, label or column.
        """
        if not labels and not columns:
            return None
        mask = column_mask(columns, {name: self._items[name] for name in self._columns}, len(self))
        return mask & label_mask(labels, self.labels, self.label_names) if labels else mask

    def search(
        self, queries: Sequence[Query], k: int, *, allowed: Mask | None = None, min_score: float = -1.0
    ) -> list[list[Hit]]:
        """The items with the largest cosines, for each query; ties by the order of the index.

        Args:
            queries: all of one target.
            k: results of each, at least 1.
            allowed: which items may be found; None: all.
            min_score: results have at least this cosine.

        Raises:
            InputError: k is below 1.
        """
        if k < 1:
            raise InputError(f"k is {k}, expected at least 1")
        if not queries:
            return []
        target = queries[0].target
        found = self._search[target].search(np.stack([query.vector for query in queries]), k, allowed)
        return self._hits(queries, found, (found.rows >= 0) & (found.cosines >= min_score))

    def nearest_labels(self, query: Query, number: int = 5) -> list[tuple[str, float]]:
        """The labels that most probably apply to a query, with their probabilities; none without calibration."""
        if query.probabilities is None:
            return []
        order = np.argsort(-query.probabilities, kind="stable")[:number]
        return [(self.model.label_names[label], float(query.probabilities[label])) for label in order]

    def thumbnail(self, row: int) -> bytes | None:
        """Small copy of an item's image as JPEG; None where it has none."""
        start, end = (int(self._thumbnail_ends[row - 1]) if row else 0), int(self._thumbnail_ends[row])
        return self._thumbnails[start:end].tobytes() or None

    def vectors(self, modality: Modality) -> NDArray[np.floating[Any]]:
        """Embeddings of all items, [N, D], memory-mapped; all zero where an item lacks the modality."""
        return self._search[modality].vectors

    def _query(self, vector: NDArray[np.float32], modality: Modality, target: Modality) -> Query:
        if not self._search[target].present.any():
            other = _other(target)
            raise InputError(f"the index has no {target}s to find", f"find its {other}s: set the target to {other}")
        probabilities = self.model.label_probabilities(vector[None])
        if modality == target:
            vector = self.model.within_modality(vector)
        return Query(vector, target, None if probabilities is None else probabilities[0])

    def _hits(self, queries: Sequence[Query], found: Nearest, kept: Mask) -> list[list[Hit]]:
        """What is shown of the results that are kept, all [B, k]; those of all queries are looked up at once."""
        rows, numbers = found.rows[kept], np.nonzero(kept)[0]  # [H], the query of each hit [H]
        # `pa.array` would import pandas, which takes a third of a second
        items = self._items.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)]))
        cells = {name: items[name].to_pylist() for name in items.column_names}
        shared = self._shared(queries, rows, numbers)
        hits: list[list[Hit]] = [[] for _ in queries]
        for place, (number, row, cosine) in enumerate(
            zip(numbers.tolist(), rows.tolist(), found.cosines[kept].tolist(), strict=True)
        ):
            hits[number].append(
                Hit(
                    rank=len(hits[number]) + 1,
                    row=row,
                    id=cells["id"][place],
                    score=cosine,
                    probability=None if shared is None else float(1 - np.prod(1 - shared[place])),
                    reasons=() if shared is None else self._reasons(shared[place]),
                    text=cells["text"][place],
                    labels=tuple(cells["labels"][place]),
                    columns={name: cells[name][place] for name in self._columns},
                )
            )
        return hits

    def _shared(
        self, queries: Sequence[Query], rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """The probability of each label that a hit and its query have it, [H, C]; None without calibration."""
        known = [query.probabilities for query in queries if query.probabilities is not None]
        if len(known) < len(queries) or not len(rows):
            return None
        probabilities = self.model.label_probabilities(self.vectors(queries[0].target)[rows])
        return None if probabilities is None else probabilities.astype(np.float64) * np.stack(known)[numbers]

    def _reasons(self, shared: NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
        order = np.argsort(-shared, kind="stable")[:NUM_REASONS]
        return tuple(
            (self.model.label_names[label], float(shared[label])) for label in order if shared[label] >= SMALLEST_REASON
        )

    def _open(self, modality: Modality) -> VectorSearch:
        content = self.artifact.content
        vectors = self._mapped(f"{modality}.npy")
        if vectors.shape != (len(self.ids), content["dim"]):
            raise ArtifactError(
                f"{self.artifact.file(f'{modality}.npy')} is {list(vectors.shape)}, "
                f"expected {[len(self.ids), content['dim']]}",
                "build the index again",
            )
        cells = content["cells"]
        return VectorSearch(
            vectors, (self.artifact.file(f"{modality}.faiss"), cells[modality]["read"]) if modality in cells else None
        )

    def _mapped(self, name: str) -> NDArray[Any]:
        path = self.artifact.file(name)
        with opening(path, self.artifact.remedy):
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array


def check_model(index: Artifact, model: TrainedModel) -> None:
    """Refuse a model that did not make an index.

    Raises:
        InputError: the digests differ.
    """
    digest = index.content["model"]["digest"]
    if digest != model.artifact.content_digest:
        raise InputError(
            f"{index.path} was built with the model {digest[:12]}, but {model.artifact.path} is "
            f"{model.artifact.content_digest[:12]}: their vectors cannot be compared",
            "give the model that built it with --model, or build an index with this one",
        )


def _other(modality: Modality) -> Modality:
    return "text" if modality == "image" else "image"
