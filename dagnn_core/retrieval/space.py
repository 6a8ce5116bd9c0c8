"""The common space: how far apart the modalities lie, and which items crowd the results.

Shapes: N pairs, D embedding dimension, Q queries, K ranks, G gallery items.
"""

import numpy as np
from numpy.typing import NDArray


def centroid_distance(image: NDArray[np.floating], text: NDArray[np.floating]) -> float:
    """Euclidean distance of the mean image and the mean text on the unit sphere, 0 to 2: the gap of the modalities.

    Liang et al., NeurIPS 2022. All-zero embeddings are left out.

    Shape:
        image [N, D], text [N, D].
    """
    centroids = []
    for embeddings in (image, text):
        vectors = embeddings.astype(np.float64)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        kept = length[:, 0] > 0
        centroids.append((vectors[kept] / length[kept]).mean(axis=0) if kept.any() else np.zeros(vectors.shape[1]))
    return float(np.linalg.norm(centroids[0] - centroids[1]))


def occurrences(order: NDArray[np.int64], num_gallery: int) -> NDArray[np.int64]:
    """N_k: in how many of the rankings' first k ranks each gallery item stands.

    Shape:
        order [Q, k] -> [G].
    """
    return np.bincount(order.ravel(), minlength=num_gallery)


def skewness(counts: NDArray[np.int64]) -> float:
    """Skewness of N_k: 0 where all items are found about as often, large where a few hubs are found always.

    Radovanović, Nanopoulos and Ivanović, JMLR 2010.

    Shape:
        counts [G].
    """
    deviations = counts - counts.mean()
    spread = float(np.sqrt((deviations**2).mean()))
    return float((deviations**3).mean()) / spread**3 if spread > 0 else 0.0
