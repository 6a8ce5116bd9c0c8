"""How many items are relevant to each other: what says whether a ranking can be wrong at all."""

# N items, C labels

import numpy as np
from numpy.typing import NDArray

MAX_ITEMS = 5000  # drawn from more: the share is then off by 0.01 at most
BLOCK_ITEMS = 500


def relevant_pairs(labels: NDArray[np.uint8], *, seed: int) -> float:
    """Share of the pairs of different items that have a label in common; 0 of fewer than two items.

    A random ranking has about this MAP.

    Args:
        labels: label matrix.
        seed: draws MAX_ITEMS items where there are more.

    Shape:
        labels [N, C].
    """
    if len(labels) > MAX_ITEMS:
        labels = labels[np.random.default_rng(seed).permutation(len(labels))[:MAX_ITEMS]]
    size = len(labels)
    if size < 2:
        return 0.0
    matrix = labels.astype(np.float32)
    shared = sum(
        int(np.count_nonzero(matrix[start : start + BLOCK_ITEMS] @ matrix.T)) for start in range(0, size, BLOCK_ITEMS)
    )
    with_itself = int(labels.any(axis=1).sum())
    return (shared - with_itself) / (size * (size - 1))
