"""Where a model fails: the hardest queries, the most confident wrong results, and the labels that it takes for others.

Shapes: N test items, C labels, K ranks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.reports.evaluation.queries import NUM_RETRIEVED
from dagnn_core.retrieval.metrics import FirstRanks


class Mistake(NamedTuple):
    """A result that shares no label with its query."""

    query: int
    item: int
    rank: int
    """From 1."""
    cosine: float


class Confusions(NamedTuple):
    """What wrong results carry."""

    num_wrong: NDArray[np.int64]
    """Wrong results among the first 10 of the queries with each label, [C]."""
    share: NDArray[np.float64]
    """Of the wrong results of queries with label i, the share that carries label j, [C, C]; NaN without any."""


def hardest(average_precision: NDArray[np.float64], count: int) -> list[int]:
    """The queries of the lowest average precision, the worst first; those that have no relevant item are left out.

    Shape:
        average_precision [N].
    """
    order = np.argsort(average_precision, kind="stable")  # NaN comes last
    return [int(query) for query in order[:count] if not np.isnan(average_precision[query])]


def confident_mistakes(first: FirstRanks, count: int) -> list[Mistake]:
    """The wrong results of the highest cosine among the first 10, one for each query, the most confident first.

    Queries that have no relevant item are left out: they cannot do better.
    """
    is_known = ~np.isnan(first.cosine[:, :NUM_RETRIEVED])
    wrong = ~first.relevant[:, :NUM_RETRIEVED] & (first.num_relevant > 0)[:, None] & is_known
    queries = np.flatnonzero(wrong.any(axis=1))
    ranks = wrong[queries].argmax(axis=1)  # cosines fall along a ranking, so the first one is the most confident
    mistakes = [
        Mistake(query, int(first.order[query, rank]), rank + 1, float(first.cosine[query, rank]))
        for query, rank in zip(queries.tolist(), ranks.tolist(), strict=True)
    ]
    return sorted(mistakes, key=lambda mistake: -mistake.cosine)[:count]


def confusions(firsts: list[FirstRanks], labels: NDArray[np.uint8]) -> Confusions:
    """Which labels wrong results carry, by the labels of their queries.

    Args:
        firsts: the first ranks of each direction.
        labels: label matrix of the test items.

    Shape:
        labels [N, C].
    """
    carried = labels.astype(np.float64)
    num_wrong = np.zeros(labels.shape[1])
    together = np.zeros((labels.shape[1], labels.shape[1]))
    for first in firsts:
        for rank in range(min(NUM_RETRIEVED, first.order.shape[1])):
            wrong = carried * ~first.relevant[:, rank, None]
            num_wrong += wrong.sum(axis=0)
            together += wrong.T @ carried[first.order[:, rank]]
    with np.errstate(invalid="ignore"):
        share = together / num_wrong[:, None]
    return Confusions(num_wrong.astype(np.int64), share)


def precision_of_ranks(first: FirstRanks) -> NDArray[np.float64]:
    """Mean precision among the first n results, for n = 1 ... K, over the queries that have a relevant item.

    Shape:
        -> [K].
    """
    relevant = first.relevant[first.num_relevant > 0]
    precision: NDArray[np.float64] = relevant.cumsum(axis=1).mean(axis=0) / np.arange(1, relevant.shape[1] + 1)
    return precision
