"""Cross-modal retrieval metrics, exact: the same to the bit for any chunking, number of threads, BLAS and device.

The published protocol (Qian et al., AAAI 2021): queries are all items of one modality, the gallery all items of the
other, own partner included; ranked by cosine; a gallery item is relevant iff it shares at least one label.

BLAS rounds equal dot products differently at different places of a matrix, so that even equal gallery items get
different cosines and ties break at random. Therefore embeddings of unit length are rounded to fixed point with 26
fractional bits: whatever sum a float64 product forms is then an integer of at most 2^52 (Cauchy-Schwarz) and exact.
The cosine's error is about 6e-9, less than float32 arithmetic has. Cosines are compared in steps of 2^-29, and items
that tie are ranked by gallery index. So a GPU, where there is one, computes the same products.

Graded relevance (NDCG) has two gains: the number of labels that query and item share, and the Jaccard overlap of their
label sets, |A ∩ B| / |A ∪ B|, which also counts the labels that only one of them has. DCG sums gain / log2(1 + rank).

Shapes: Q queries, G gallery items, N pairs, C labels, D embedding dimension, B queries of a block.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagnn_core.devices import free_memory
from dagnn_core.errors import InputError

RECALL_STEPS = 20  # a precision-recall curve has this many steps from recall 0 to recall 1

EMBEDDING_BITS = 26
COSINE_BITS = 29
BELOW_ALL = 2.0 * 2**COSINE_BITS  # the negated cosine with an all-zero embedding

BLOCK_QUERIES = 1024  # rows of one matrix product
BLOCK_ENTRIES = 1 << 22  # fewer rows where the gallery is large: at most 32 MiB of similarities at once
SLICE_QUERIES = 64  # queries that a thread ranks at a time
SLICE_ENTRIES = 1 << 16  # fewer where the gallery is large, so that a thread's arrays stay in the cache
PLACE_BITS = 32  # of a sort key: gallery index and number of shared labels

Embeddings = NDArray[np.floating[Any]]
Labels = NDArray[np.uint8]
Rows = NDArray[np.int64]
T = TypeVar("T")


class QueryScores(NamedTuple):
    """Scores of every query in one direction, float64 [Q]; NaN where a query has no relevant item."""

    average_precision: NDArray[np.float64]
    """AP = (1/R) · sum of the precision at every relevant rank; R = number of relevant items in the gallery."""
    average_precision_at_50: NDArray[np.float64]
    """The same over the first 50 ranks, divided by min(50, R) instead of R."""
    ndcg: NDArray[np.float64]
    """DCG over that of the best ranking; gain = number of shared labels."""
    ndcg_at_10: NDArray[np.float64]
    """The same with the first 10 ranks of both."""
    ndcg_jaccard: NDArray[np.float64]
    """As `ndcg`; gain = Jaccard overlap of the label sets."""
    ndcg_jaccard_at_10: NDArray[np.float64]
    """As `ndcg_at_10`; gain = Jaccard overlap of the label sets."""
    recall_at_10: NDArray[np.float64]
    """1 where the query's own partner is among the first 10, else 0 (R@10 of the cross-modal literature)."""


class ScoresAndCurve(NamedTuple):
    """What one direction scores."""

    scores: QueryScores
    precision: NDArray[np.float64]
    """Interpolated precision at recall 0, 1/20 ... 1, as `precision_recall`, [RECALL_STEPS + 1]."""


def evaluate_retrieval(image: Embeddings, text: Embeddings, labels: Labels) -> dict[str, float]:
    """All metrics of a set of pairs, in both directions; `QueryScores` defines them.

    Args:
        image: image embeddings; all-zero ones are ranked last.
        text: text embeddings of the same items; all-zero ones are ranked last.
        labels: label matrix Y of the items.

    Shape:
        image [N, D], text [N, D], labels [N, C].

    Raises:
        InputError: shapes that do not fit, an embedding that is not finite, or no item has a label.
    """
    return mean_scores(*score_pairs(image, text, labels))


def score_pairs(image: Embeddings, text: Embeddings, labels: Labels) -> tuple[QueryScores, QueryScores]:
    """Score every image of a set of pairs as a query for the texts, and every text as a query for the images.

    The same as two calls of `score_queries`, faster: the best rankings are the same in both directions.

    Args:
        image: image embeddings; all-zero ones are ranked last.
        text: text embeddings of the same items; all-zero ones are ranked last.
        labels: label matrix Y of the items.

    Shape:
        image [N, D], text [N, D], labels [N, C].

    Raises:
        InputError: as `score_queries`.
    """
    image_to_text, text_to_image = _map_pairs(lambda scorer: scorer.score, image, text, labels)
    return _concatenate(image_to_text), _concatenate(text_to_image)


def score_pairs_with_curves(
    image: Embeddings, text: Embeddings, labels: Labels
) -> tuple[ScoresAndCurve, ScoresAndCurve]:
    """`score_pairs`, and `precision_recall` of both directions; each ranks the gallery only once.

    Args:
        image: image embeddings; all-zero ones are ranked last.
        text: text embeddings of the same items; all-zero ones are ranked last.
        labels: label matrix Y of the items.

    Shape:
        image [N, D], text [N, D], labels [N, C].

    Raises:
        InputError: as `precision_recall`.
    """
    both = _map_pairs(lambda scorer: lambda ranking: (scorer.score(ranking), _curves(ranking)), image, text, labels)
    image_to_text, text_to_image = (
        ScoresAndCurve(_concatenate(scores for scores, _ in parts), _mean_curve(curves for _, curves in parts))
        for parts in both
    )
    return image_to_text, text_to_image


def _map_pairs(
    use: Callable[["_Scorer"], Callable[["_Ranking"], T]], image: Embeddings, text: Embeddings, labels: Labels
) -> tuple[list[T], list[T]]:
    _check_shapes(image, text, labels, labels)
    mapped = use(_Scorer(labels, labels, np.arange(len(image)), _ideal_dcg(labels, labels)))
    return (
        _map_rankings(mapped, image, text, labels, labels),
        _map_rankings(mapped, text, image, labels, labels),
    )


def mean_scores(image_to_text: QueryScores, text_to_image: QueryScores) -> dict[str, float]:
    """Means over the queries that have a relevant item, by metric name; the others are counted.

    Args:
        image_to_text: scores of the images of some pairs as queries.
        text_to_image: scores of the texts of the same pairs.

    Raises:
        InputError: no query has a relevant item.
    """
    metrics: dict[str, float] = {}
    for direction, scores in (("i2t", image_to_text), ("t2i", text_to_image)):
        defined = ~np.isnan(scores.average_precision)
        _require_relevant(defined)
        names = (
            *(f"map_{direction}", f"map_{direction}_at_50", f"ndcg_{direction}", f"ndcg_{direction}_at_10"),
            *(f"ndcg_jaccard_{direction}", f"ndcg_jaccard_{direction}_at_10", f"recall_{direction}_at_10"),
        )
        metrics |= {name: float(values[defined].mean()) for name, values in zip(names, scores, strict=True)}
    return metrics | {
        "map_mean": (metrics["map_i2t"] + metrics["map_t2i"]) / 2,
        "num_queries": float(defined.sum()),  # pairs share their labels, so it is the same in both directions
        "num_queries_excluded": float((~defined).sum()),
    }


def score_queries(
    query: Embeddings,
    gallery: Embeddings,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    partners: NDArray[np.integer[Any]],
) -> QueryScores:
    """Score every query of one direction.

    Args:
        query: embeddings of one modality; an all-zero query ties with everything: the gallery in its own order.
        gallery: embeddings of the other modality; all-zero items are ranked last.
        query_labels: label matrix of the queries.
        gallery_labels: label matrix of the gallery.
        partners: gallery index of every query's own partner.

    Shape:
        query [Q, D], gallery [G, D], query_labels [Q, C], gallery_labels [G, C], partners [Q].

    Raises:
        InputError: shapes that do not fit, an embedding that is not finite, or a gallery of too many items.
    """
    _check_shapes(query, gallery, query_labels, gallery_labels)
    if np.shape(partners) != (len(query),):
        raise InputError(f"partners have shape {list(np.shape(partners))}, expected one for each query: [{len(query)}]")
    scorer = _Scorer(query_labels, gallery_labels, partners, _ideal_dcg(query_labels, gallery_labels))
    return _concatenate(_map_rankings(scorer.score, query, gallery, query_labels, gallery_labels))


class _Scorer:
    """Scores rankings of one direction, a few queries at a time."""

    def __init__(
        self, query_labels: Labels, gallery_labels: Labels, partners: NDArray[np.integer[Any]], ideal: "_DCG"
    ) -> None:
        self.partners, self.ideal = partners, ideal
        self.query_sizes_Q, self.gallery_sizes_G = _sizes(query_labels), _sizes(gallery_labels)
        self.ranks_G, self.discounts_G = np.arange(1.0, len(gallery_labels) + 1), _discounts(len(gallery_labels))

    def score(self, ranking: "_Ranking") -> QueryScores:
        ideal, rows = self.ideal, ranking.rows
        order_BG, shared_BG = ranking.order, ranking.shared.astype(np.float64)
        relevant_BG = np.minimum(shared_BG, 1)
        precision_BG = relevant_BG.cumsum(axis=1)
        num_relevant = _nan_for_zero(precision_BG[:, -1])
        precision_BG /= self.ranks_G
        precision_BG *= relevant_BG
        found = (order_BG[:, :10] == self.partners[rows, None]).any(axis=1)
        jaccard_BG = _jaccard(shared_BG, self.query_sizes_Q[rows], self.gallery_sizes_G[order_BG])
        dcg = _dcg(shared_BG, jaccard_BG, self.discounts_G)
        return QueryScores(
            average_precision=precision_BG.sum(axis=1) / num_relevant,
            average_precision_at_50=precision_BG[:, :50].sum(axis=1) / np.minimum(num_relevant, 50),
            ndcg=dcg.shared / ideal.shared[rows],
            ndcg_at_10=dcg.shared_at_10 / ideal.shared_at_10[rows],
            ndcg_jaccard=dcg.jaccard / ideal.jaccard[rows],
            ndcg_jaccard_at_10=dcg.jaccard_at_10 / ideal.jaccard_at_10[rows],
            recall_at_10=np.where(np.isnan(num_relevant), np.nan, found),
        )


def precision_recall(
    query: Embeddings, gallery: Embeddings, query_labels: Labels, gallery_labels: Labels
) -> NDArray[np.float64]:
    """Precision-recall curve: interpolated precision at recall 0, 1/20 ... 1, mean over queries with a relevant item.

    The interpolated precision at a recall is the highest precision at this or a higher recall (TREC).

    Shape:
        query [Q, D], gallery [G, D], query_labels [Q, C], gallery_labels [G, C] -> [RECALL_STEPS + 1].

    Raises:
        InputError: as `score_queries`, or no query has a relevant item.
    """
    _check_shapes(query, gallery, query_labels, gallery_labels)
    return _mean_curve(_map_rankings(_curves, query, gallery, query_labels, gallery_labels))


def _curves(ranking: "_Ranking") -> NDArray[np.float64]:
    """Curves of a few queries, [B, RECALL_STEPS + 1]; NaN without relevant items."""
    curves = np.full((len(ranking.rows), RECALL_STEPS + 1), np.nan)
    for curve, relevant_G in zip(curves, ranking.shared > 0, strict=True):
        ranks = np.flatnonzero(relevant_G) + 1
        if len(ranks) > 0:
            precision = np.arange(1, len(ranks) + 1) / ranks
            highest = np.maximum.accumulate(precision[::-1])[::-1]
            num_hits = -(-np.arange(RECALL_STEPS + 1) * len(ranks) // RECALL_STEPS)  # needed, rounded up
            curve[:] = highest[np.maximum(num_hits, 1) - 1]
    return curves


def _mean_curve(parts: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    curves = np.concatenate(list(parts))
    defined = ~np.isnan(curves[:, 0])
    _require_relevant(defined)
    mean: NDArray[np.float64] = curves[defined].mean(axis=0)
    return mean


def rank_gallery(query: Embeddings, gallery: Embeddings) -> NDArray[np.int64]:
    """Gallery indices by decreasing cosine, for every query; ties and zeros as in `score_queries`.

    Shape:
        query [Q, D], gallery [G, D] -> [Q, G].

    Raises:
        InputError: as `score_queries`.
    """
    no_labels = [np.zeros((len(embeddings), 1), np.uint8) for embeddings in (query, gallery)]
    _check_shapes(query, gallery, *no_labels)
    return np.concatenate(_map_rankings(lambda ranking: ranking.order, query, gallery, *no_labels))


class FirstRanks(NamedTuple):
    """The first K ranks of every query of one direction, and where its partner stands."""

    order: NDArray[np.int64]
    """Gallery index of the item at each rank, [Q, K]."""
    relevant: NDArray[np.bool_]
    """Whether that item is relevant, [Q, K]."""
    cosine: NDArray[np.float64]
    """Its cosine with the query, in steps of 2^-29, [Q, K]; NaN of an all-zero embedding."""
    partner_rank: NDArray[np.int64]
    """Rank of the query's own partner, from 1, [Q]."""
    num_relevant: NDArray[np.int64]
    """Relevant items in the gallery, [Q]."""


def first_ranks(
    query: Embeddings,
    gallery: Embeddings,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    partners: NDArray[np.integer[Any]],
    num_ranks: int,
) -> FirstRanks:
    """What stands at the first ranks; ties and zeros as in `score_queries`.

    Args:
        query: embeddings of one modality.
        gallery: embeddings of the other modality.
        query_labels: label matrix of the queries.
        gallery_labels: label matrix of the gallery.
        partners: gallery index of every query's own partner.
        num_ranks: K; of a smaller gallery, all of it.

    Shape:
        query [Q, D], gallery [G, D], query_labels [Q, C], gallery_labels [G, C], partners [Q].

    Raises:
        InputError: as `score_queries`.
    """
    _check_shapes(query, gallery, query_labels, gallery_labels)

    def inspect(ranking: _Ranking) -> FirstRanks:
        order_BG, relevant_BG = ranking.order, ranking.shared > 0
        cosine_BK = -(ranking.keys[:, :num_ranks] >> PLACE_BITS) / 2.0**COSINE_BITS
        return FirstRanks(
            order=order_BG[:, :num_ranks],
            relevant=relevant_BG[:, :num_ranks],
            cosine=np.where(cosine_BK < -1.5, np.nan, cosine_BK),  # `BELOW_ALL` is -2
            partner_rank=(order_BG == partners[ranking.rows, None]).argmax(axis=1) + 1,
            num_relevant=relevant_BG.sum(axis=1),
        )

    blocks = _map_rankings(inspect, query, gallery, query_labels, gallery_labels)
    return FirstRanks(*map(np.concatenate, zip(*blocks, strict=True)))


def average_precision_at(
    query: Embeddings,
    gallery: Embeddings,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    cutoffs: Sequence[int],
    without: NDArray[np.integer[Any]] | None = None,
) -> list[NDArray[np.float64]]:
    """AP@k of every query for several k: over the first k ranks, divided by min(k, R); NaN where nothing is relevant.

    Args:
        query: embeddings.
        gallery: embeddings of what is searched, of the other modality or of the same.
        query_labels: label matrix of the queries.
        gallery_labels: label matrix of the gallery.
        cutoffs: the k; one above the gallery stands for the whole of it.
        without: gallery index of the one item that each query must not find, itself in its own modality; None: none.

    Shape:
        query [Q, D], gallery [G, D], query_labels [Q, C], gallery_labels [G, C], without [Q] -> [Q] for each k.

    Raises:
        InputError: as `score_queries`, or a gallery of the query alone.
    """
    _check_shapes(query, gallery, query_labels, gallery_labels)
    num_gallery = len(gallery) - (without is not None)
    if num_gallery < 1:
        raise InputError("the gallery has the query alone", "expected at least two items")

    def score(ranking: _Ranking) -> NDArray[np.float64]:
        relevant_BG = ranking.shared > 0
        if without is not None:
            relevant_BG = relevant_BG[ranking.order != without[ranking.rows, None]].reshape(-1, num_gallery)
        num_relevant = _nan_for_zero(relevant_BG.sum(axis=1, dtype=np.float64))
        precision_BG = relevant_BG.cumsum(axis=1, dtype=np.float64)
        precision_BG /= np.arange(1, num_gallery + 1)
        precision_BG *= relevant_BG
        return np.stack([precision_BG[:, :k].sum(axis=1) / np.minimum(num_relevant, k) for k in cutoffs], axis=1)

    blocks = _map_rankings(score, query, gallery, query_labels, gallery_labels)
    return list(np.concatenate(blocks).T)


def map_by_label(average_precision: NDArray[np.float64], query_labels: Labels) -> NDArray[np.float64]:
    """MAP over the queries that carry a label, for every label; NaN where no query carries it.

    Shape:
        average_precision [Q] (NaN: left out), query_labels [Q, C] -> [C].
    """
    defined = ~np.isnan(average_precision)
    labels = query_labels[defined].astype(np.float64)
    means: NDArray[np.float64] = average_precision[defined] @ labels / _nan_for_zero(labels.sum(axis=0))
    return means


def chance_scores(query_labels: Labels, gallery_labels: Labels) -> QueryScores:
    """What a random ranking scores in expectation, in closed form: nothing is drawn.

    The item at rank r is relevant with probability R/G, and each item before it is then relevant with probability
    (R-1)/(G-1): E[AP@k] = R / (G min(k, R)) · Σ_{r≤k} (1 + (r-1)(R-1)/(G-1)) / r, with k = G for the whole ranking.
    The gain at every rank is the gallery's mean gain in expectation.

    Shape:
        query_labels [Q, C], gallery_labels [G, C].
    """
    num_gallery = len(gallery_labels)
    query_sizes_Q, gallery_sizes_G = _sizes(query_labels), _sizes(gallery_labels)
    ideal = _ideal_dcg(query_labels, gallery_labels)
    discounts = _discounts(num_gallery)
    total, total_10 = discounts.sum(), discounts[:10].sum()

    def average_precision(num_relevant: NDArray[np.float64], cutoff: int) -> NDArray[np.float64]:
        harmonic = (1 / np.arange(1, cutoff + 1)).sum()
        others = (num_relevant - 1) / max(num_gallery - 1, 1)
        expected = num_relevant / num_gallery * (harmonic + others * (cutoff - harmonic))
        normalized: NDArray[np.float64] = expected / np.minimum(num_relevant, cutoff)
        return normalized

    blocks = []
    gallery_labels_GC = _columns(gallery_labels.astype(np.float32))
    for rows in _split(np.arange(len(query_labels)), _block_size(num_gallery)):
        shared_BG = _product(query_labels[rows].astype(np.float32), gallery_labels_GC)
        num_relevant = _nan_for_zero((shared_BG > 0).sum(axis=1, dtype=np.float64))
        shared = shared_BG.mean(axis=1, dtype=np.float64)
        jaccard = _jaccard(shared_BG, query_sizes_Q[rows], gallery_sizes_G).mean(axis=1)
        scores = QueryScores(
            average_precision=average_precision(num_relevant, num_gallery),
            average_precision_at_50=average_precision(num_relevant, min(50, num_gallery)),
            ndcg=shared * total / ideal.shared[rows],
            ndcg_at_10=shared * total_10 / ideal.shared_at_10[rows],
            ndcg_jaccard=jaccard * total / ideal.jaccard[rows],
            ndcg_jaccard_at_10=jaccard * total_10 / ideal.jaccard_at_10[rows],
            recall_at_10=np.where(np.isnan(num_relevant), np.nan, min(10 / num_gallery, 1)),
        )
        blocks.append(scores)
    return _concatenate(blocks)


def relevant_fraction(query_labels: Labels, gallery_labels: Labels) -> NDArray[np.float64]:
    """Fraction R/G of the gallery that is relevant to every query: the precision of chance at any recall.

    Shape:
        query_labels [Q, C], gallery_labels [G, C] -> [Q].
    """
    gallery_labels_GC = _columns(gallery_labels.astype(np.float32))
    blocks = [
        (_product(query_labels[rows].astype(np.float32), gallery_labels_GC) > 0).mean(axis=1)
        for rows in _split(np.arange(len(query_labels)), _block_size(len(gallery_labels)))
    ]
    return np.concatenate(blocks)


class _Ranking(NamedTuple):
    """The gallery, ranked for a few queries."""

    rows: Rows
    """Which queries, [B]."""
    keys: NDArray[np.int64]
    """Ascending; from high to low 32 bits of negated cosine, the gallery index, the number of shared labels; [B, G]."""
    shared_bits: int
    """How many bits the number of shared labels has."""

    @property
    def shared(self) -> NDArray[np.int64]:
        """Number of labels that the query and the item at each rank share, [B, G]."""
        return self.keys & ((1 << self.shared_bits) - 1)

    @property
    def order(self) -> NDArray[np.int64]:
        """Gallery index of the item at each rank, [B, G]."""
        return (self.keys & ((1 << PLACE_BITS) - 1)) >> self.shared_bits


class _DCG(NamedTuple):
    """DCG of every query, by gain and cutoff; float64 [Q]."""

    shared: NDArray[np.float64]
    shared_at_10: NDArray[np.float64]
    jaccard: NDArray[np.float64]
    jaccard_at_10: NDArray[np.float64]


def _map_rankings(
    use: Callable[[_Ranking], T], query: Embeddings, gallery: Embeddings, query_labels: Labels, gallery_labels: Labels
) -> list[T]:
    """Rank the gallery for all queries and collect what `use` makes of every few rankings; threads share the work."""
    query_QD, zero_query_Q = fixed_point(query, "query")
    fixed_gallery, zero_gallery_G = fixed_point(gallery, "gallery")
    gallery_GD, gallery_labels_GC = _columns(fixed_gallery), _columns(gallery_labels.astype(np.float32))
    query_labels_QC = query_labels.astype(np.float32)
    shared_bits = int(_sizes(gallery_labels).max()).bit_length()
    if len(gallery) > 1 << (PLACE_BITS - shared_bits):
        raise InputError(
            f"the gallery has {len(gallery)} items, expected at most {1 << (PLACE_BITS - shared_bits)}",
            "evaluate on a part of the data set",
        )
    places_G = np.arange(len(gallery)) << shared_bits

    def rank(rows: Rows, cosine_BG: NDArray[np.float64], shared_BG: NDArray[np.float32]) -> T:
        cosine_BG *= -(2.0 ** (COSINE_BITS - 2 * EMBEDDING_BITS))
        cosine_BG[:, zero_gallery_G] = BELOW_ALL
        cosine_BG[zero_query_Q[rows]] = BELOW_ALL
        keys_BG = np.rint(cosine_BG, out=cosine_BG).astype(np.int64)
        keys_BG <<= PLACE_BITS
        keys_BG |= places_G
        keys_BG |= shared_BG.astype(np.int64)
        keys_BG.sort(axis=1)  # plain integers sort several times faster than a stable argsort of floats
        return use(_Ranking(rows, keys_BG, shared_bits))

    results: list[T] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for rows in _split(np.arange(len(query)), _block_size(len(gallery))):
            cosine_BG = _product(query_QD[rows], gallery_GD)
            shared_BG = _product(query_labels_QC[rows], gallery_labels_GC)
            size = _slice_size(len(gallery))
            results += pool.map(rank, *(_split(array, size) for array in (rows, cosine_BG, shared_BG)))
    return results


def _block_size(num_gallery: int) -> int:
    return max(1, min(BLOCK_QUERIES, BLOCK_ENTRIES // num_gallery))


def _slice_size(num_gallery: int) -> int:
    return max(1, min(SLICE_QUERIES, SLICE_ENTRIES // num_gallery))


def _split(array: NDArray[Any], size: int) -> list[NDArray[Any]]:
    return np.split(array, range(size, len(array), size))


def _columns(matrix: NDArray[Any]) -> Tensor:
    """What `_product` multiplies with, on a GPU where there is one with room for it."""
    columns = torch.from_numpy(matrix)
    # in deterministic mode cuBLAS refuses products unless a variable was set before it started; these are exact anyway
    is_usable = torch.cuda.is_available() and not torch.are_deterministic_algorithms_enabled()
    return columns.cuda() if is_usable and 2 * matrix.nbytes < free_memory(torch.device("cuda")) else columns


def _product(rows: NDArray[Any], columns: Tensor) -> NDArray[Any]:
    """Dot product of every row of two matrices, by torch: its threads do not keep the cores busy while they wait."""
    product: NDArray[Any] = (torch.from_numpy(rows).to(columns.device) @ columns.T).cpu().numpy()
    return product


def fixed_point(embeddings: Embeddings, role: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Embeddings of unit length as integers in float64, and which are all zero (these stay so).

    Args:
        embeddings: of any length.
        role: what messages call them.

    Shape:
        [N, D] -> [N, D] (times 2^EMBEDDING_BITS), [N].

    Raises:
        InputError: one is not finite.
    """
    points, is_zero = np.empty(embeddings.shape), np.empty(len(embeddings), dtype=np.bool_)
    _require_finite(embeddings, role)
    for start in range(0, len(embeddings), BLOCK_QUERIES):  # a block at a time: copies of all would take gigabytes
        rows = slice(start, start + BLOCK_QUERIES)
        scale = _scale(embeddings[rows])
        points[rows], is_zero[rows] = scale_to_fixed_point(embeddings[rows], scale), scale.is_zero
    return points, is_zero


class FixedPointScale(NamedTuple):
    """What embeddings are divided and multiplied by to become fixed-point vectors of unit length."""

    largest: NDArray[np.float64]
    """[N, 1]; divided by first, so that squares neither overflow nor vanish."""
    factor: NDArray[np.float64]
    """[N, 1]."""
    is_zero: NDArray[np.bool_]
    """Which are all zero, [N]."""


def fixed_point_scale(embeddings: Embeddings, role: str) -> FixedPointScale:
    """The scale of each embedding; see `fixed_point`."""
    _require_finite(embeddings, role)
    return _scale(embeddings)


def _scale(embeddings: Embeddings) -> FixedPointScale:
    unit = np.asarray(embeddings, dtype=np.float64)
    largest = np.abs(unit).max(axis=1, keepdims=True)
    zero = largest[:, 0] == 0
    largest[zero] = 1
    unit = unit / largest
    length = np.sqrt(np.einsum("nd,nd->n", unit, unit))
    length[zero] = 1
    return FixedPointScale(largest, (2.0**EMBEDDING_BITS / length)[:, None], zero)


def _require_finite(embeddings: Embeddings, role: str) -> None:
    for start in range(0, len(embeddings), BLOCK_QUERIES):
        is_finite = np.isfinite(embeddings[start : start + BLOCK_QUERIES]).all(axis=1)
        if not is_finite.all():
            raise InputError(
                f"{role} embedding {start + int(np.argmin(is_finite))} of {len(embeddings)} is not finite, "
                "expected finite numbers",
                "check the features, and the model that made it",
            )


def scale_to_fixed_point(embeddings: Embeddings, scale: FixedPointScale) -> NDArray[np.float64]:
    """Embeddings of a known scale as integers in float64, [N, D]; see `fixed_point`."""
    unit = np.array(embeddings, dtype=np.float64)
    unit /= scale.largest
    unit *= scale.factor
    return np.rint(unit, out=unit)


def _check_shapes(query: Embeddings, gallery: Embeddings, query_labels: Labels, gallery_labels: Labels) -> None:
    for role, embeddings, labels in (("query", query, query_labels), ("gallery", gallery, gallery_labels)):
        if embeddings.ndim != 2 or labels.ndim != 2 or len(embeddings) != len(labels) or embeddings.size == 0:
            raise InputError(
                f"{role} embeddings have shape {list(embeddings.shape)} and labels {list(labels.shape)}, "
                "expected [N, D] and [N, C] with the same N and at least one item"
            )
    for what, one, other in (("dimensions", query, gallery), ("labels", query_labels, gallery_labels)):
        if one.shape[1] != other.shape[1]:
            raise InputError(f"queries have {one.shape[1]} {what}, the gallery {other.shape[1]}", "expected as many")


def _require_relevant(defined: NDArray[np.bool_]) -> None:
    if not defined.any():
        raise InputError(
            f"none of {len(defined)} queries has a relevant item, so MAP is undefined",
            "expected items that share labels, check the labels and the splits of the data set",
        )


def _ideal_dcg(query_labels: Labels, gallery_labels: Labels) -> _DCG:
    """DCG of the best ranking for every query, NaN where nothing is relevant; threads share the work.

    It depends on a query's labels alone, so it is computed once for all queries with the same labels.
    """
    distinct_UC, inverse_Q = np.unique(query_labels, axis=0, return_inverse=True)
    gallery_labels_GC = _columns(gallery_labels.astype(np.float32))
    gallery_sizes_G = _sizes(gallery_labels)
    discounts_G = _discounts(len(gallery_labels))

    def best(query_sizes_B: NDArray[np.float64], shared_BG: NDArray[np.float32]) -> _DCG:
        jaccard_BG = _jaccard(shared_BG, query_sizes_B, gallery_sizes_G)
        dcg = _dcg(np.sort(shared_BG, axis=1)[:, ::-1], np.sort(jaccard_BG, axis=1)[:, ::-1], discounts_G)
        return _DCG(*map(_nan_for_zero, dcg))

    blocks: list[_DCG] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for labels_BC in _split(distinct_UC.astype(np.float32), _block_size(len(gallery_labels))):
            shared_BG = _product(labels_BC, gallery_labels_GC)
            size = _slice_size(len(gallery_labels))
            blocks += pool.map(best, *(_split(array, size) for array in (_sizes(labels_BC), shared_BG)))
    return _DCG(*(np.concatenate(columns)[inverse_Q] for columns in zip(*blocks, strict=True)))


def _dcg(
    shared_BG: NDArray[np.floating[Any]], jaccard_BG: NDArray[np.float64], discounts_G: NDArray[np.float64]
) -> _DCG:
    """DCG of gains by rank."""
    columns = []
    for gains_BG in (shared_BG, jaccard_BG):
        discounted_BG = gains_BG * discounts_G
        columns += [discounted_BG.sum(axis=1), discounted_BG[:, :10].sum(axis=1)]
    return _DCG(*columns)


def _discounts(num_ranks: int) -> NDArray[np.float64]:
    discounts: NDArray[np.float64] = 1 / np.log2(np.arange(2, num_ranks + 2))
    return discounts


def _jaccard(
    shared_BG: NDArray[np.floating[Any]], query_sizes_B: NDArray[np.float64], gallery_sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Jaccard overlap of label sets, 0 where both are empty; gallery sizes [G], or [B, G] by rank."""
    union_BG = np.maximum(query_sizes_B, 1)[:, None] + gallery_sizes  # a query without labels shares none of them
    union_BG -= shared_BG
    jaccard_BG: NDArray[np.float64] = shared_BG / union_BG
    return jaccard_BG


def _sizes(labels: NDArray[Any]) -> NDArray[np.float64]:
    """How many labels each item has."""
    sizes: NDArray[np.float64] = labels.sum(axis=1, dtype=np.float64)
    return sizes


def _concatenate(blocks: Iterable[QueryScores]) -> QueryScores:
    return QueryScores(*map(np.concatenate, zip(*blocks, strict=True)))


def _nan_for_zero(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values == 0, np.nan, values)
