"""The summary of a log of queries: counts, latency, trend, and drift from the data that the model was trained on."""

# N queries, D dimension, C labels

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.services.serving.query_log import decode_vector, encode_vector
from components.services.watching.lines import LoggedQuery
from dagnn_core.data.dataset import Dataset, Modality
from dagnn_core.data_check.findings import Finding, judge
from dagnn_core.data_check.queries import QueryLimits, Sample, check_queries, check_share
from dagnn_core.errors import InputError
from dagnn_core.model.embedder import TrainedModel

MAX_SAMPLE = 2000  # queries, and items, of which embeddings are compared: as in `data check`
MAX_TEXTS = 20_000  # queries whose words are compared
SEED = 103
MAX_HOURS = 72  # a longer log has a point for each day, not each hour
QUANTILES = (50, 95, 99)


@dataclass(slots=True)
class Counts:
    """What is counted of some queries."""

    queries: int = 0
    judged: int = 0
    """Queries of which the log says whether something relevant was found; without calibration, those without result."""
    irrelevant: int = 0
    words: int = 0
    """Of texts, where the model has a vocabulary."""
    unknown_words: int = 0
    milliseconds: "array[float]" = field(default_factory=lambda: array("f"))
    models: Counter[str] = field(default_factory=Counter)
    """Model -> queries that it has answered."""

    def add(self, query: LoggedQuery) -> None:
        """Count a query."""
        self.queries += 1
        self.judged += query.relevant is not None
        self.irrelevant += query.relevant is False
        if query.words is not None and query.unknown_words is not None:
            self.words += query.words
            self.unknown_words += query.unknown_words
        self.milliseconds.append(query.milliseconds)
        self.models[name_of(query)] += 1

    def merge(self, other: "Counts") -> None:
        """Count the queries of the other, too."""
        for name in ("queries", "judged", "irrelevant", "words", "unknown_words"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.milliseconds.extend(other.milliseconds)
        self.models.update(other.models)

    @property
    def irrelevant_share(self) -> float | None:
        """Share of queries with nothing relevant; None where the log says of none whether there was."""
        return self.irrelevant / self.queries if self.judged else None

    def latency(self) -> dict[str, float]:
        """Milliseconds at the `QUANTILES`: `p50`, `p95`, `p99`."""
        values = np.percentile(np.frombuffer(self.milliseconds, dtype=np.float32), QUANTILES)
        return {f"p{quantile}": float(value) for quantile, value in zip(QUANTILES, values, strict=True)}


def name_of(query: LoggedQuery) -> str:
    """The model that has answered, for readers."""
    model = query.model
    return f"{model.name} {model.version}" if model.name else f"model {model.digest[:12]}"


class Point(NamedTuple):
    """The queries of an hour or a day."""

    time: str
    """Its beginning, in UTC."""
    counts: Counts


class Reservoir:
    """A fair sample of a stream, of bounded size."""

    def __init__(self, size: int) -> None:
        self._size, self._seen = size, 0
        self._rng = np.random.default_rng(SEED)
        self.items: list[LoggedQuery] = []

    def add(self, item: LoggedQuery) -> None:
        """Show it an item of the stream."""
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(item)
        elif (place := int(self._rng.integers(self._seen))) < self._size:
            self.items[place] = item


class LogSummary:
    """What a log says.

    Args:
        queries: of the log.
        digest: of the model whose queries are looked at; empty: whichever has answered.
    """

    def __init__(self, queries: Iterable[LoggedQuery], digest: str = "") -> None:
        self.total = Counts()
        self.others: Counter[str] = Counter()
        """Other models -> queries that they have answered, which are left out."""
        self._hours: dict[str, Counts] = {}
        self._texts = Reservoir(MAX_TEXTS)
        self._vectors: dict[Modality, Reservoir] = {"text": Reservoir(MAX_SAMPLE), "image": Reservoir(MAX_SAMPLE)}
        for query in queries:
            if digest and query.model.digest != digest:
                self.others[name_of(query)] += 1
                continue
            self.total.add(query)
            self._hours.setdefault(query.moment.strftime("%Y-%m-%d %H:00"), Counts()).add(query)
            if query.kind == "text":
                self._texts.add(query)
            # a query within its own modality has another embedding than the items
            if (query.kind, query.target) == ("text", "image"):
                self._vectors["text"].add(query)
            elif (query.kind, query.target) == ("image", "text"):
                self._vectors["image"].add(query)

    def trend(self) -> list[Point]:
        """A point for each hour, or each day of a longer log."""
        if len(self._hours) <= MAX_HOURS:
            return [Point(hour, self._hours[hour]) for hour in sorted(self._hours)]
        days: dict[str, Counts] = {}
        for hour, counts in self._hours.items():
            days.setdefault(hour[:10], Counts()).merge(counts)
        return [Point(day, days[day]) for day in sorted(days)]

    def check(self, limits: QueryLimits) -> list[Finding]:
        """Hold what the log alone says against the limits."""
        total = self.total
        findings = []
        if total.judged:
            explanation = (
                "share of queries without a result that is probably relevant; add items to the index, or train on data "
                "that has what is asked for"
            )
            findings.append(
                check_share("nothing_relevant", total.irrelevant, total.queries, limits.nothing_relevant, explanation)
            )
        if total.words:
            explanation = "share of words that are not in the model's vocabulary; train on data that has them"
            findings.append(
                check_share("unknown_words", total.unknown_words, total.words, limits.unknown_words, explanation)
            )
        latency = total.latency()
        findings.append(
            judge(
                "latency_p95_ms",
                latency["p95"],
                limits.latency_p95_ms,
                "milliseconds of a query, 95th percentile, without the queue; use a smaller encoder or more processors",
                examples=[f"{name} {value:.1f} ms" for name, value in latency.items()],
            )
        )
        return findings

    def check_against(self, model: TrainedModel, dataset: Dataset, limits: QueryLimits) -> list[Finding]:
        """Compare the queries with the data that their model was trained on.

        Args:
            model: the model that has answered them.
            dataset: its data; embeddings are compared with those of the test split, which training has not seen.
            limits: from where on a finding fails.
        """
        embeddings = {
            modality: vectors
            for modality, sample in self._vectors.items()
            if (vectors := _vectors_of(sample.items, model)) is not None
        }
        queries = Sample(
            texts=[query.text for query in self._texts.items if query.text],
            embeddings=embeddings,
            probabilities=_probabilities(model, embeddings),
        )
        known = {
            modality: vectors
            for modality in embeddings
            if (vectors := _embed_items(model, dataset, modality)) is not None
        }
        texts = [text for text in dataset.texts if text]
        items = Sample(texts=texts, embeddings=known, probabilities=_probabilities(model, known))
        return list(check_queries(queries, items, label_names=model.label_names, limits=limits))


def _vectors_of(queries: Sequence[LoggedQuery], model: TrainedModel) -> NDArray[np.float32] | None:
    """Embeddings of those queries that have one of the model's dimension, [N, D]; None where none has."""
    dim = model.artifact.content["output_dim"]
    found = [vector for query in queries if (vector := query.vector) is not None and vector.shape == (dim,)]
    kept = [vector for vector in found if np.isfinite(vector).all()]
    return np.stack(kept) if kept else None


def _probabilities(
    model: TrainedModel, embeddings: dict[Modality, NDArray[np.float32]]
) -> dict[Modality, NDArray[np.float32]]:
    found = {modality: model.label_probabilities(vectors) for modality, vectors in embeddings.items()}
    return {modality: values for modality, values in found.items() if values is not None}


def _embed_items(model: TrainedModel, dataset: Dataset, modality: Modality) -> NDArray[np.float32] | None:
    """Embeddings of the test split, or of some of it; None where the data has no items that the model can encode."""
    has_modality = dataset.has_image if modality == "image" else dataset.is_written
    rows = np.flatnonzero((dataset.splits == "test") & has_modality)
    rows = np.sort(np.random.default_rng(SEED).permutation(rows)[:MAX_SAMPLE])
    if not len(rows):
        return None
    try:
        if modality == "text":
            vectors = model.encode_texts([dataset.texts[row] for row in rows])
        else:
            vectors = model.encode_images([image or b"" for image in dataset.images(rows.tolist())])
    except InputError:  # a model, or data, of precomputed vectors
        return None
    # rounded as those of the log: else rounding alone would be drift, where a dimension hardly varies
    return np.stack([decode_vector(encode_vector(vector)) for vector in vectors])
