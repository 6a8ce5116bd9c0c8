"""Failures by hand: hardest queries, confident mistakes, confusions, precision of ranks."""

import numpy as np
import pytest

from dagnn_core.reports.evaluation.failures import (
    Mistake,
    confident_mistakes,
    confusions,
    hardest,
    precision_of_ranks,
)
from dagnn_core.retrieval.metrics import FirstRanks

# three queries, three items; labels a, b, c; the last query finds nothing relevant
LABELS = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.uint8)
FIRST = FirstRanks(
    order=np.array([[2, 0], [1, 2], [0, 1]]),
    relevant=np.array([[False, True], [True, False], [False, False]]),
    cosine=np.array([[0.9, 0.5], [0.8, 0.7], [0.95, 0.1]]),
    partner_rank=np.array([2, 1, 3]),
    num_relevant=np.array([2, 2, 0]),
)


def test_the_lowest_come_first_and_what_is_undefined_is_left_out() -> None:
    assert hardest(np.array([0.5, np.nan, 0.1, 0.5]), 3) == [2, 0, 3]


def test_the_surest_mistake_of_each_query_that_could_do_better() -> None:
    assert confident_mistakes(FIRST, 5) == [Mistake(0, 2, 1, 0.9), Mistake(1, 2, 2, 0.7)]
    assert confident_mistakes(FIRST, 1) == [Mistake(0, 2, 1, 0.9)]
    unknown = FIRST._replace(cosine=np.full_like(FIRST.cosine, np.nan))
    assert confident_mistakes(unknown, 5) == [], "an all-zero embedding is sure of nothing"


def test_labels_of_wrong_results_by_label_of_the_query() -> None:
    found = confusions([FIRST, FIRST], LABELS)
    # wrong: query 0 -> item 2; query 1 -> item 2; query 2 -> items 0 and 1, in each direction
    assert found.num_wrong.tolist() == [4, 2, 4]
    assert found.share.tolist() == [[0, 0, 1], [0, 0, 1], [1, 0.5, 0]]
    perfect = confusions([FIRST._replace(relevant=np.ones_like(FIRST.relevant))], LABELS)
    assert not perfect.num_wrong.any() and np.isnan(perfect.share).all()


def test_precision_of_the_first_results_over_the_queries_that_have_a_relevant_item() -> None:
    assert precision_of_ranks(FIRST) == pytest.approx([0.5, 0.5])
