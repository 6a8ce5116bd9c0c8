"""MAP by the protocols of the literature: which gallery is searched, in which modality, and down to which rank.

The numbers of two papers can be compared only where all three are the same; a cut-off alone moves MAP by points.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.features.features import Features
from dagnn_core.model.files import TrainedNetwork
from dagnn_core.retrieval.metrics import QueryScores, average_precision_at

CUTOFFS = (50, 5000)
"""Beside the whole gallery; 5000 is usual in the literature of hashing."""
MAX_PAIRS = 1 << 26  # of query and gallery item: a minute on one core; of a larger gallery a part is drawn


class Protocol(NamedTuple):
    """MAP by one protocol."""

    name: str
    queries: str
    """Modality of the queries."""
    gallery: str
    """Modality of what is searched."""
    num_queries: int
    """Those that have a relevant item."""
    num_gallery: int
    """Items that each query is compared with."""
    is_drawn: bool
    """Whether the gallery is a part of a larger one."""
    map_at: Mapping[int, float]
    """Cut-off -> MAP, the last one being the whole gallery; empty where no query has a relevant item."""


def measure_protocols(
    model: TrainedNetwork,
    features: Features,
    test: NDArray[np.int64],
    *,
    image: NDArray[np.float32],
    text: NDArray[np.float32],
    scores: Mapping[str, QueryScores],
) -> tuple[Protocol, ...]:
    """Measure a model by each protocol.

    Args:
        model: the model.
        features: features of all splits.
        test: rows of the test items, [N].
        image: their image embeddings.
        text: their text embeddings.
        scores: theirs as queries for each other, by direction.

    Shape:
        image [N, d], text [N, d].
    """
    labels = features.labels[test]
    own = np.arange(len(test))
    found = [
        _published(scores["i2t"], ("image", image, labels), ("text", text, labels)),
        _published(scores["t2i"], ("text", text, labels), ("image", image, labels)),
    ]
    for queries, gallery, embeddings in (("image", "text", image), ("text", "image", text)):
        has_gallery = features.has_text if gallery == "text" else features.has_image
        rows = np.flatnonzero((features.splits != "test") & has_gallery)
        if not len(rows):
            continue
        drawn = _draw(rows, len(test))
        embedded = (
            model.embed_text_features(features.text[drawn])
            if gallery == "text"
            else model.embed_image_features(features.image[drawn])
        )
        found.append(
            _measure(
                "training and validation splits",
                (queries, embeddings, labels),
                (gallery, embedded, features.labels[drawn]),
                is_drawn=len(drawn) < len(rows),
            )
        )
    if len(test) > 1:
        for modality, embeddings in (("image", image), ("text", text)):
            found.append(
                _measure(
                    "test split, same modality",
                    (modality, model.within_modality(embeddings), labels),
                    (modality, embeddings, labels),
                    without=own,
                )
            )
    return tuple(found)


_Side = tuple[str, NDArray[np.float32], NDArray[np.uint8]]
"""Modality, embeddings and labels."""


def _published(scores: QueryScores, queries: _Side, gallery: _Side) -> Protocol:
    """The test split as queries and gallery, of which most is measured already."""
    num_gallery = len(gallery[1])
    if any(50 < cutoff < num_gallery for cutoff in CUTOFFS):
        return _measure("test split", queries, gallery)
    known = {50: scores.average_precision_at_50} if num_gallery > 50 else {}
    return _protocol("test split", queries[0], gallery[0], known | {num_gallery: scores.average_precision})


def _measure(
    name: str, queries: _Side, gallery: _Side, *, without: NDArray[np.int64] | None = None, is_drawn: bool = False
) -> Protocol:
    num_gallery = len(gallery[1]) - (without is not None)
    cutoffs = [*(cutoff for cutoff in CUTOFFS if cutoff < num_gallery), num_gallery]
    scores = average_precision_at(queries[1], gallery[1], queries[2], gallery[2], cutoffs=cutoffs, without=without)
    by_cutoff = dict(zip(cutoffs, scores, strict=True))
    return _protocol(name, queries[0], gallery[0], by_cutoff, is_drawn=is_drawn)


def _protocol(
    name: str, queries: str, gallery: str, scores: Mapping[int, NDArray[np.float64]], *, is_drawn: bool = False
) -> Protocol:
    """Means over the queries that have a relevant item; the last cut-off is the whole gallery."""
    num_gallery = max(scores)
    defined = ~np.isnan(scores[num_gallery])
    return Protocol(
        name=name,
        queries=queries,
        gallery=gallery,
        num_queries=int(defined.sum()),
        num_gallery=num_gallery,
        is_drawn=is_drawn,
        map_at={cutoff: float(values[defined].mean()) for cutoff, values in scores.items()} if defined.any() else {},
    )


def _draw(rows: NDArray[np.int64], num_queries: int) -> NDArray[np.int64]:
    """Of a gallery that is too large, as many rows as there is time for."""
    most = max(1, MAX_PAIRS // num_queries)
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(DEFAULT_SEED).choice(rows, size=most, replace=False))
