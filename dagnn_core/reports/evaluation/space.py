"""A map of the common space: items of both modalities in two dimensions, by PCA and by t-SNE.

Shapes: N test items, d embedding dimension, M mapped items, of which each has two points.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.reports.evaluation.queries import NUM_RETRIEVED
from dagnn_core.retrieval.metrics import FirstRanks
from dagnn_core.retrieval.space import occurrences, skewness

MAX_ITEMS = 200  # mapped; drawn from more. t-SNE takes a second for them
MIN_ITEMS = 3
PERPLEXITY = 30.0
NUM_ITERATIONS = 500  # of t-SNE, half of the library's default: so few points have settled by then


class Hubness(NamedTuple):
    """How evenly the gallery of one direction is found among the first 10 results."""

    skewness: float
    """Of N_10."""
    never: float
    """Share of the items that no query finds."""
    most: int
    """Queries that find the item which most of them do."""


class SpaceMap(NamedTuple):
    """Points of the mapped items; coordinates from 0 to 100, in both directions."""

    items: NDArray[np.int64]
    """Test items, [M]."""
    pca: NDArray[np.float64]
    """Images, then texts, [2 M, 2]."""
    tsne: NDArray[np.float64]
    """Images, then texts, [2 M, 2]."""


def hubness(first: FirstRanks, num_gallery: int) -> Hubness:
    """Count how often each item of a gallery is among the first 10."""
    counts = occurrences(first.order[:, :NUM_RETRIEVED], num_gallery)
    return Hubness(skewness(counts), float((counts == 0).mean()), int(counts.max()))


def map_space(image: NDArray[np.float32], text: NDArray[np.float32]) -> SpaceMap | None:
    """Map embeddings of unit length; None where there are too few items, or all are the same.

    Args:
        image: image embeddings.
        text: text embeddings of the same items.

    Shape:
        image [N, d], text [N, d].
    """
    items = np.arange(len(image))
    if len(items) > MAX_ITEMS:
        items = np.sort(np.random.default_rng(DEFAULT_SEED).choice(items, size=MAX_ITEMS, replace=False))
    vectors = np.concatenate([image[items], text[items]]).astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(length == 0, 1, length)
    if len(items) < MIN_ITEMS or vectors.shape[1] < 2 or np.ptp(vectors, axis=0).max() < 1e-9:
        return None
    pca = PCA(n_components=2, svd_solver="full").fit_transform(vectors)
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (len(vectors) - 1) / 3),
        max_iter=NUM_ITERATIONS,
        init="pca",
        random_state=DEFAULT_SEED,
        n_jobs=1,
    ).fit_transform(vectors)
    return SpaceMap(items, _to_percent(pca), _to_percent(tsne))


def _to_percent(points: NDArray[np.floating]) -> NDArray[np.float64]:
    low, spread = points.min(axis=0), np.ptp(points, axis=0)
    scaled: NDArray[np.float64] = (100 * (points - low) / np.where(spread == 0, 1, spread)).astype(np.float64)
    return scaled.round(1)
