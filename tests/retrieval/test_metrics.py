"""Retrieval metrics against plain loops in exact arithmetic, and the properties that the module promises."""

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dagnn_core.errors import InputError
from dagnn_core.retrieval import metrics as ranking
from dagnn_core.retrieval.metrics import (
    RECALL_STEPS,
    QueryScores,
    average_precision_at,
    chance_scores,
    evaluate_retrieval,
    first_ranks,
    map_by_label,
    mean_scores,
    precision_recall,
    rank_gallery,
    relevant_fraction,
    score_pairs,
    score_pairs_with_curves,
    score_queries,
)


class Problem(NamedTuple):
    """One direction: arguments of `score_queries`."""

    query: NDArray[np.float64]
    gallery: NDArray[np.float64]
    query_labels: NDArray[np.uint8]
    gallery_labels: NDArray[np.uint8]
    partners: NDArray[np.int64]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Small problems full of ties, zeros and unlabelled items; Q and G differ.

    Entries of -1, 0 and 1 in four dimensions, scaled: cosines are equal as real numbers or far apart.
    """
    num_queries, num_gallery = draw(st.integers(1, 5)), draw(st.integers(1, 14))
    num_labels = draw(st.integers(1, 4))

    def embeddings(count: int) -> NDArray[np.float64]:
        rows = draw(
            st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=4, max_size=4), min_size=count, max_size=count)
        )
        scales = draw(st.lists(st.sampled_from([1.0, 2.0, 3.0, 0.1, 1e-30]), min_size=count, max_size=count))
        return np.array(rows, dtype=np.float64) * np.array(scales)[:, None]

    def labels(count: int) -> NDArray[np.uint8]:
        size = count * num_labels
        bits = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
        return np.array(bits, dtype=np.uint8).reshape(count, num_labels)

    partners = draw(st.lists(st.integers(0, num_gallery - 1), min_size=num_queries, max_size=num_queries))
    return Problem(
        embeddings(num_queries), embeddings(num_gallery), labels(num_queries), labels(num_gallery), np.array(partners)
    )


def random_pairs(num: int, dim: int = 24, num_labels: int = 5, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    labels = (rng.random((num, num_labels)) < 0.3).astype(np.uint8)
    query, gallery = (rng.normal(size=(num, dim)) for _ in range(2))
    return Problem(query, gallery, labels, labels, np.arange(num))


def exact_order(query: list[float], gallery: list[list[float]]) -> list[int]:
    """Gallery indices by decreasing cosine in rational arithmetic: sign(q·g) (q·g)² / (g·g) orders like the cosine."""

    def key(row: list[float]) -> Fraction:
        signs = [Fraction(int(np.sign(value))) for value in row]  # the rows are multiples of rows of signs
        dot = sum((a * int(np.sign(b)) for a, b in zip(signs, query, strict=True)), Fraction(0))
        square = sum((a * a for a in signs), Fraction(0))
        return abs(dot) * dot / square

    def place(index: int) -> tuple[bool, Fraction, int]:
        is_zero = not any(gallery[index])
        return (is_zero, Fraction(0) if is_zero else -key(gallery[index]), index)

    if not any(query):
        return list(range(len(gallery)))
    return sorted(range(len(gallery)), key=place)


def plain_scores(
    order: list[int], query_labels: set[int], gallery_labels: list[set[int]], partner: int
) -> tuple[float, ...] | None:
    """The metrics of one query by plain loops over a ranking, as `QueryScores`; None without relevant items."""
    num_relevant = sum(bool(query_labels & labels) for labels in gallery_labels)
    if num_relevant == 0:
        return None
    hits, total, total_50 = 0, 0.0, 0.0
    for rank, index in enumerate(order, start=1):
        if query_labels & gallery_labels[index]:
            hits += 1
            total += hits / rank
            total_50 += hits / rank if rank <= 50 else 0.0
    shared = [float(len(query_labels & labels)) for labels in gallery_labels]
    jaccard = [len(query_labels & labels) / len(query_labels | labels) for labels in gallery_labels]
    ndcg = [plain_ndcg(order, gains, cutoff) for gains in (shared, jaccard) for cutoff in (len(order), 10)]
    return (total / num_relevant, total_50 / min(50, num_relevant), *ndcg, float(partner in order[:10]))


def plain_ndcg(order: list[int], gains: list[float], cutoff: int) -> float:
    dcg, ideal = 0.0, 0.0
    best = sorted(gains, reverse=True)
    for rank in range(1, min(cutoff, len(order)) + 1):
        dcg += gains[order[rank - 1]] / math.log2(1 + rank)
        ideal += best[rank - 1] / math.log2(1 + rank)
    return dcg / ideal


def label_sets(labels: NDArray[np.uint8]) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in labels]


def assert_scores_equal(actual: QueryScores, expected: list[tuple[float, ...] | None]) -> None:
    for query, values in enumerate(expected):
        got = [float(column[query]) for column in actual]
        if values is None:
            assert np.isnan(got).all()
        else:
            assert got == pytest.approx(values, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(problems())
def test_scores_equal_plain_loops_with_ties_zeros_and_unlabelled_items(problem: Problem) -> None:
    orders = [exact_order(query, problem.gallery.tolist()) for query in problem.query.tolist()]
    assert rank_gallery(problem.query, problem.gallery).tolist() == orders
    expected = [
        plain_scores(order, labels, label_sets(problem.gallery_labels), partner)
        for order, labels, partner in zip(
            orders, label_sets(problem.query_labels), problem.partners.tolist(), strict=True
        )
    ]
    assert_scores_equal(score_queries(*problem[:4], partners=problem.partners), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_equal_plain_loops_beyond_every_cutoff(dtype: type[np.floating]) -> None:
    problem = random_pairs(131)
    problem = problem._replace(query=problem.query.astype(dtype), gallery=problem.gallery.astype(dtype))
    query, gallery = (matrix.astype(np.float64) for matrix in problem[:2])
    cosine = query @ gallery.T / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(gallery, axis=1)
    expected = [
        plain_scores(np.argsort(-row, kind="stable").tolist(), labels, label_sets(problem.gallery_labels), partner)
        for row, labels, partner in zip(cosine, label_sets(problem.query_labels), range(131), strict=True)
    ]
    assert_scores_equal(score_queries(*problem[:4], partners=problem.partners), expected)


@settings(deadline=None, max_examples=40)
@given(problems(), st.integers(1, 20))
def test_first_ranks_are_those_of_the_whole_ranking(problem: Problem, num_ranks: int) -> None:
    found = first_ranks(*problem[:4], partners=problem.partners, num_ranks=num_ranks)
    orders = [exact_order(query, problem.gallery.tolist()) for query in problem.query.tolist()]
    assert found.order.tolist() == [order[:num_ranks] for order in orders]
    shared = problem.query_labels.astype(int) @ problem.gallery_labels.T.astype(int)
    assert found.relevant.tolist() == [
        [bool(shared[query, item]) for item in order[:num_ranks]] for query, order in enumerate(orders)
    ]
    assert found.num_relevant.tolist() == (shared > 0).sum(axis=1).tolist()
    partners = [order[rank - 1] for order, rank in zip(orders, found.partner_rank, strict=True)]
    assert partners == problem.partners.tolist()
    for query, items in enumerate(found.order.tolist()):
        for rank, item in enumerate(items):
            one, other = problem.query[query], problem.gallery[item]
            if not one.any() or not other.any():
                assert np.isnan(found.cosine[query, rank])
            else:
                one, other = (vector / np.abs(vector).max() for vector in (one, other))
                expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
                assert found.cosine[query, rank] == pytest.approx(expected, abs=1e-7)


def test_average_precision_at_cutoffs_is_that_of_the_scores_to_the_digit() -> None:
    problem = random_pairs(131)
    scores = score_queries(*problem[:4], partners=problem.partners)
    at_50, whole, beyond = average_precision_at(*problem[:4], cutoffs=[50, 131, 10**6])
    for found, expected in ((at_50, scores.average_precision_at_50), (whole, scores.average_precision)):
        assert found.tolist() == pytest.approx(expected.tolist(), nan_ok=True, abs=0)
    assert beyond.tolist() == pytest.approx(whole.tolist(), nan_ok=True, abs=0)
    at_1 = average_precision_at(*problem[:4], cutoffs=[1])[0]
    first = first_ranks(*problem[:4], partners=problem.partners, num_ranks=1)
    defined = first.num_relevant > 0
    assert at_1[defined].tolist() == first.relevant[defined, 0].astype(float).tolist()


def test_a_query_that_must_not_find_itself_ranks_the_others() -> None:
    problem = random_pairs(40)
    own = np.arange(40)
    [found] = average_precision_at(
        problem.query, problem.query, problem.query_labels, problem.query_labels, cutoffs=[40], without=own
    )
    for query in range(40):
        others = own != query
        [[expected]] = average_precision_at(
            problem.query[[query]],
            problem.query[others],
            problem.query_labels[[query]],
            problem.query_labels[others],
            cutoffs=[39],
        )
        assert found[query] == pytest.approx(expected, nan_ok=True, abs=0)
    with pytest.raises(InputError, match="the gallery has the query alone"):
        average_precision_at(*(values[:1] for values in problem[:4]), cutoffs=[1], without=own[:1])


def test_equal_gallery_items_rank_by_index_wherever_they_stand() -> None:
    rng = np.random.default_rng(0)
    query, half = (rng.normal(size=(77, 1024)).astype(np.float32) for _ in range(2))
    order = rank_gallery(query, np.concatenate([half, half, half[:1]]))  # BLAS rounds the last columns differently
    position = order.argsort(axis=1)
    assert (position[:, 77:154] == position[:, :77] + 1).all()
    assert (position[:, 154] == position[:, 77] + 1).all()


@pytest.mark.parametrize(("block", "entries", "part"), [(1, 1, 1), (7, 1 << 22, 3), (64, 1 << 22, 64), (512, 1000, 5)])
def test_result_is_the_same_to_the_bit_for_any_chunking(
    monkeypatch: pytest.MonkeyPatch, block: int, entries: int, part: int
) -> None:
    problem = random_pairs(203, dim=40)
    whole = score_queries(*problem[:4], partners=problem.partners)
    chance = chance_scores(*problem[2:4])
    monkeypatch.setattr(ranking, "BLOCK_QUERIES", block)
    monkeypatch.setattr(ranking, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr(ranking, "SLICE_QUERIES", part)
    monkeypatch.setattr(ranking, "SLICE_ENTRIES", entries // 4)
    chunked = score_queries(*problem[:4], partners=problem.partners)
    np.testing.assert_array_equal(np.array(chunked), np.array(whole))
    np.testing.assert_array_equal(np.array(chance_scores(*problem[2:4])), np.array(chance))


def test_result_is_the_same_to_the_bit_for_any_other_queries_and_threads() -> None:
    problem = random_pairs(203, dim=40)
    whole = np.array(score_queries(*problem[:4], partners=problem.partners))
    some = np.array([3, 200, 17])
    alone = score_queries(
        problem.query[some], problem.gallery, problem.query_labels[some], problem.gallery_labels, partners=some
    )
    np.testing.assert_array_equal(np.array(alone), whole[:, some])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single = score_queries(*problem[:4], partners=problem.partners)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(np.array(single), whole)


def test_dot_products_are_exact() -> None:
    rng = np.random.default_rng(0)
    one, other = (ranking.fixed_point(rng.normal(size=(9, 1024)).astype(np.float32), "query")[0] for _ in range(2))
    expected = [
        [sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) for column in other.tolist()]
        for row in one.tolist()
    ]
    assert ranking._product(one, ranking._columns(other)).astype(np.int64).tolist() == expected


def test_scale_of_an_embedding_does_not_matter() -> None:
    problem = random_pairs(50)
    scales = 10.0 ** np.random.default_rng(1).uniform(-300, 300, size=(50, 1))
    order = rank_gallery(problem.query, problem.gallery)
    np.testing.assert_array_equal(rank_gallery(problem.query * scales, problem.gallery * scales[::-1]), order)


def test_perfect_and_reversed_rankings() -> None:
    labels = np.eye(3, dtype=np.uint8)[[0, 0, 1, 2]]
    embeddings = labels.astype(np.float32)
    metrics = evaluate_retrieval(embeddings, embeddings, labels)
    assert all(value == 1.0 for name, value in metrics.items() if not name.startswith("num_"))
    # the only relevant item comes last of four
    scores = score_queries(
        np.array([[1.0]]), np.array([[1.0], [1], [1], [-1]]), labels[3:], labels, partners=np.array([3])
    )
    assert scores.average_precision[0] == 0.25


@settings(deadline=None, max_examples=25)
@given(problems())
def test_ndcg_is_at_most_one_and_rises_when_a_better_item_moves_up(problem: Problem) -> None:
    """Along a bubble sort by gain every metric rises to exactly 1."""
    query_labels, gallery_labels = problem.query_labels[:1], problem.gallery_labels
    shared = (query_labels.astype(int) @ gallery_labels.T.astype(int))[0]
    union = np.maximum(query_labels.sum(dtype=int) + gallery_labels.sum(axis=1, dtype=int) - shared, 1)
    for gains, whole, first_10 in (
        (shared, "ndcg", "ndcg_at_10"),
        (shared / union, "ndcg_jaccard", "ndcg_jaccard_at_10"),
    ):
        if not gains.any():
            continue
        order = list(range(len(gains)))
        metrics = []
        while True:
            scores = scores_of_order(order, query_labels, gallery_labels)
            metrics.append([float(getattr(scores, name)[0]) for name in (whole, first_10)])
            worse = [rank for rank in range(len(order) - 1) if gains[order[rank]] < gains[order[rank + 1]]]
            if not worse:
                break
            order[worse[0]], order[worse[0] + 1] = order[worse[0] + 1], order[worse[0]]
        assert metrics[-1] == [1.0, 1.0]
        for before, after in itertools.pairwise(metrics):
            assert before[0] < after[0] and before[1] <= after[1]


def scores_of_order(
    order: list[int], query_labels: NDArray[np.uint8], gallery_labels: NDArray[np.uint8]
) -> QueryScores:
    """Scores of one query whose ranking is this order."""
    angle = np.argsort(order) / len(order)
    gallery = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return score_queries(np.array([[1.0, 0.0]]), gallery, query_labels, gallery_labels, partners=np.array([0]))


def test_jaccard_counts_the_labels_that_only_one_has() -> None:
    query_labels = np.array([[1, 1, 0, 0]], dtype=np.uint8)
    gallery_labels = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=np.uint8)  # overlaps 1/2 and 1
    scores = scores_of_order([0, 1], query_labels, gallery_labels)
    assert scores.ndcg.tolist() == scores.ndcg_at_10.tolist() == [1.0]
    expected = (0.5 + 1 / math.log2(3)) / (1 + 0.5 / math.log2(3))
    assert scores.ndcg_jaccard.tolist() == scores.ndcg_jaccard_at_10.tolist() == [pytest.approx(expected, abs=1e-15)]


def test_pairs_score_as_both_directions_do() -> None:
    problem = random_pairs(90)
    labels, own = problem.query_labels, problem.partners
    image_to_text, text_to_image = score_pairs(problem.query, problem.gallery, labels)
    for actual, query, gallery in (
        (image_to_text, problem.query, problem.gallery),
        (text_to_image, problem.gallery, problem.query),
    ):
        expected = score_queries(query, gallery, labels, labels, partners=own)
        np.testing.assert_array_equal(np.array(actual), np.array(expected))


def test_scores_and_curves_of_one_ranking_are_those_of_two() -> None:
    problem = random_pairs(90)
    pairs = problem.query, problem.gallery, problem.query_labels
    scored = score_pairs_with_curves(*pairs)
    for (scores, curve), expected, matrices in zip(
        scored, score_pairs(*pairs), (problem[:2], problem[1::-1]), strict=True
    ):
        np.testing.assert_array_equal(np.array(scores), np.array(expected))
        np.testing.assert_array_equal(curve, precision_recall(*matrices, *problem[2:4]))


def test_metric_names_and_excluded_queries() -> None:
    problem = random_pairs(40)
    labels = problem.query_labels.copy()
    labels[:3] = 0
    without = (labels.sum(axis=1) == 0).sum()
    metrics = evaluate_retrieval(problem.query, problem.gallery, labels)
    assert set(metrics) == {
        *("map_i2t", "map_i2t_at_50", "ndcg_i2t", "ndcg_i2t_at_10", "recall_i2t_at_10"),
        *("map_t2i", "map_t2i_at_50", "ndcg_t2i", "ndcg_t2i_at_10", "recall_t2i_at_10"),
        *("ndcg_jaccard_i2t", "ndcg_jaccard_i2t_at_10", "ndcg_jaccard_t2i", "ndcg_jaccard_t2i_at_10"),
        *("map_mean", "num_queries", "num_queries_excluded"),
    }
    assert metrics["num_queries"] == 40 - without
    assert metrics["num_queries_excluded"] == without
    image_to_text, _ = score_pairs(problem.query, problem.gallery, labels)
    names = ("map_i2t", "map_i2t_at_50", "ndcg_i2t", "ndcg_i2t_at_10", "ndcg_jaccard_i2t", "ndcg_jaccard_i2t_at_10")
    for name, values in zip(names, image_to_text[:6], strict=True):
        assert metrics[name] == pytest.approx(np.nanmean(values), abs=1e-12)
    assert metrics["map_mean"] == (metrics["map_i2t"] + metrics["map_t2i"]) / 2
    assert all(math.isfinite(value) for value in metrics.values())


def test_recall_counts_the_own_partner_only() -> None:
    gallery = np.array([[1.0, angle / 10] for angle in range(12)])  # by decreasing cosine with the query
    labels = np.ones((12, 1), dtype=np.uint8)
    query = np.array([[1.0, 0.0]] * 2)
    scores = score_queries(query, gallery, labels[:2], labels, partners=np.array([9, 10]))
    assert scores.recall_at_10.tolist() == [1.0, 0.0]


def test_precision_recall_equals_plain_loops() -> None:
    problem = random_pairs(60)
    total, count = np.zeros(RECALL_STEPS + 1), 0
    gallery_labels = label_sets(problem.gallery_labels)
    for order, labels in zip(rank_gallery(*problem[:2]).tolist(), label_sets(problem.query_labels), strict=True):
        hits = [bool(labels & gallery_labels[index]) for index in order]
        if any(hits):
            points = [(Fraction(sum(hits[:rank]), sum(hits)), sum(hits[:rank]) / rank) for rank in range(1, 61)]
            levels = [Fraction(step, RECALL_STEPS) for step in range(RECALL_STEPS + 1)]
            total += [max(precision for recall, precision in points if recall >= level) for level in levels]
            count += 1
    np.testing.assert_allclose(precision_recall(*problem[:4]), total / count, atol=1e-12)


def test_map_by_label_is_the_mean_over_the_queries_with_the_label() -> None:
    average_precision = np.array([0.5, 1.0, np.nan, 0.25])
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(map_by_label(average_precision, labels), [0.75, 0.625, np.nan])


def test_chance_equals_the_mean_over_all_rankings() -> None:
    query_labels = np.array([[1, 1, 0]], dtype=np.uint8)
    gallery_labels = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=np.uint8)
    sets = label_sets(gallery_labels)
    every = [plain_scores(list(order), {0, 1}, sets, 0) for order in itertools.permutations(range(6))]
    expected = np.mean([scores for scores in every if scores is not None], axis=0)
    assert np.array(chance_scores(query_labels, gallery_labels))[:, 0] == pytest.approx(expected, abs=1e-12)


def test_relevant_fraction() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=np.uint8)
    assert relevant_fraction(labels, labels).tolist() == [0.5, 0.75, 0.0, 0.5]


def test_chance_is_what_random_embeddings_score() -> None:
    problem = random_pairs(700, num_labels=12)
    drawn = evaluate_retrieval(problem.query, problem.gallery, problem.query_labels)
    chance = chance_scores(problem.query_labels, problem.gallery_labels)
    expected = mean_scores(chance, chance)
    assert drawn == pytest.approx(expected, abs=0.02)
    assert expected["map_i2t"] > 0.3  # far above zero: two random items often share a label


def test_single_pair_scores_one() -> None:
    one = np.ones((1, 1))
    metrics = evaluate_retrieval(one, one, one.astype(np.uint8))
    chance = chance_scores(one.astype(np.uint8), one.astype(np.uint8))
    assert metrics == mean_scores(chance, chance)
    assert metrics["map_mean"] == 1.0


def test_a_gallery_beyond_the_bits_of_a_sort_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "PLACE_BITS", 5)
    problem = random_pairs(9)
    assert problem.gallery_labels.sum(axis=1).max() == 3  # takes 2 bits, so 3 are left
    with pytest.raises(InputError, match="the gallery has 9 items, expected at most 8; evaluate on a part"):
        score_queries(*problem[:4], partners=problem.partners)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_embeddings_that_are_not_finite_are_refused(value: float) -> None:
    problem = random_pairs(5)
    problem.gallery[3, 2] = value
    with pytest.raises(InputError, match="gallery embedding 3 of 5 is not finite"):
        evaluate_retrieval(problem.query, problem.gallery, problem.query_labels)


def test_labels_nobody_shares_are_refused() -> None:
    problem = random_pairs(5)
    nothing = np.zeros((5, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="none of 5 queries has a relevant item"):
        evaluate_retrieval(problem.query, problem.gallery, nothing)
    with pytest.raises(InputError, match="none of 5 queries has a relevant item"):
        precision_recall(problem.query, problem.gallery, nothing, nothing)


def test_shapes_that_do_not_fit_are_refused() -> None:
    query, gallery, labels, _, own = random_pairs(5)
    with pytest.raises(InputError, match="queries have 24 dimensions, the gallery 23"):
        score_queries(query, gallery[:, 1:], labels, labels, partners=own)
    with pytest.raises(InputError, match="queries have 5 labels, the gallery 4"):
        score_queries(query, gallery, labels, labels[:, 1:], partners=own)
    with pytest.raises(InputError, match=r"gallery embeddings have shape \[5, 24\] and labels \[4, 5\]"):
        score_queries(query, gallery, labels, labels[1:], partners=own)
    with pytest.raises(InputError, match=r"query embeddings have shape \[0, 24\]"):
        score_queries(query[:0], gallery, labels[:0], labels, partners=own[:0])
    with pytest.raises(InputError, match=r"partners have shape \[4\], expected one for each query: \[5\]"):
        score_queries(query, gallery, labels, labels, partners=own[1:])
