import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dagnn_core.label_graph.cooccurrence import (
    conditional_probabilities,
    count_cooccurrences,
    isolated_labels,
    normalize_adjacency,
    threshold_adjacency,
)

WEIGHTS = {"threshold": 0.4, "edge_weight": 0.5, "self_loop": 1.0}


@st.composite
def label_matrices(draw):
    """Label matrices in which every label occurs."""
    num_labels = draw(st.integers(1, 6))
    drawn = draw(arrays(np.uint8, (draw(st.integers(0, 12)), num_labels), elements=st.integers(0, 1)))
    return np.concatenate([drawn, np.eye(num_labels, dtype=np.uint8)])


def matrices(labels):
    """P, A and Â of a label matrix."""
    conditional = conditional_probabilities(*count_cooccurrences(labels))
    adjacency = threshold_adjacency(conditional, **WEIGHTS)
    return conditional, adjacency, normalize_adjacency(adjacency)


@given(label_matrices())
def test_counts_equal_counting_item_by_item(labels):
    num_labels = labels.shape[1]
    counts = np.zeros((num_labels, num_labels), dtype=np.int64)
    label_counts = np.zeros(num_labels, dtype=np.int64)
    for item in labels:
        for i in range(num_labels):
            label_counts[i] += item[i]
            for j in range(num_labels):
                counts[i, j] += i != j and item[i] and item[j]
    found = count_cooccurrences(labels)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.label_counts, label_counts)
    np.testing.assert_array_equal(found.counts, found.counts.T)
    assert found.counts.dtype == found.label_counts.dtype == np.int64


@given(label_matrices())
def test_matrices_equal_the_formulas_entry_by_entry(labels):
    counts, label_counts = count_cooccurrences(labels)
    conditional, adjacency, normalized = matrices(labels)
    size = range(len(counts))
    degree = [sum(adjacency[i, j] for j in size) for i in size]
    for i in size:
        for j in size:
            assert conditional[i, j] == counts[i, j] / label_counts[j]
            assert adjacency[i, j] == 0.5 * (counts[i, j] / label_counts[j] >= 0.4) + (i == j)
            assert normalized[i, j] == pytest.approx(adjacency[j, i] / np.sqrt(degree[i] * degree[j]), rel=1e-14)


@given(label_matrices(), st.randoms(use_true_random=False))
def test_another_order_of_labels_reorders_everything(labels, random):
    order = list(range(labels.shape[1]))
    random.shuffle(order)
    for matrix, reordered in zip(matrices(labels), matrices(labels[:, order]), strict=True):
        np.testing.assert_allclose(reordered, matrix[np.ix_(order, order)], rtol=1e-14)


@given(label_matrices(), st.integers(2, 5))
def test_repeated_items_scale_the_counts_but_change_no_probability(labels, times):
    once, repeated = count_cooccurrences(labels), count_cooccurrences(np.tile(labels, (times, 1)))
    np.testing.assert_array_equal(repeated.counts, times * once.counts)
    np.testing.assert_array_equal(repeated.label_counts, times * once.label_counts)
    np.testing.assert_array_equal(conditional_probabilities(*repeated), conditional_probabilities(*once))


def test_a_probability_on_the_threshold_is_an_edge():
    conditional = np.array([[0.0, 2 / 5], [0.4 - 1e-12, 0.0]])
    np.testing.assert_array_equal(threshold_adjacency(conditional, **WEIGHTS), [[1.0, 0.5], [0.0, 1.0]])


def test_boats_listen_to_water_and_not_the_other_way_round():
    labels = np.array([[1, 1], [1, 1], [0, 1], [0, 1], [0, 1], [0, 1]], dtype=np.uint8)  # boat, water
    conditional, _, normalized = matrices(labels)
    np.testing.assert_array_equal(conditional, [[0, 2 / 6], [1, 0]])
    assert normalized[0, 1] > 0
    assert normalized[1, 0] == 0


def test_a_label_that_never_occurs_has_no_probabilities():
    with pytest.raises(ValueError, match=r"every label must occur, but those at \[1\] do not"):
        conditional_probabilities(*count_cooccurrences(np.array([[1, 0]], dtype=np.uint8)))


def test_isolated_labels_have_no_edge_in_either_direction():
    edges = np.zeros((4, 4), dtype=bool)
    edges[0, 2] = True
    assert isolated_labels(edges) == [1, 3]
