"""Slices of a test split, against their definitions written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dagnn_core.retrieval.slices import rare_label_items, short_text_items

FRACTIONS = st.floats(0.01, 1)


@given(st.data(), st.integers(1, 8), st.integers(1, 6), FRACTIONS)
def test_rare_labels_are_the_least_frequent_ones(data, num_items, num_labels, fraction):
    labels = data.draw(arrays(np.uint8, (num_items, num_labels), elements=st.integers(0, 1)))
    counts = data.draw(arrays(np.int64, num_labels, elements=st.integers(0, 5)))
    occurring = [label for label in range(num_labels) if labels[:, label].any()]
    rare = sorted(occurring, key=lambda label: (counts[label], label))[: math.ceil(fraction * len(occurring))]
    expected = [any(row[label] for label in rare) for row in labels]
    assert rare_label_items(labels, counts, fraction).tolist() == expected


def test_labels_that_do_not_occur_are_not_rare():
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.uint8)
    assert rare_label_items(labels, np.array([9, 5, 0]), 0.5).tolist() == [False, True, True]


@given(st.lists(st.integers(0, 5), min_size=1), FRACTIONS)
def test_short_texts_are_at_least_the_fraction_and_no_longer_than_the_rest(lengths, fraction):
    short = short_text_items(["word " * length for length in lengths], fraction)
    assert short.sum() >= fraction * len(lengths)
    inside, outside = np.array(lengths)[short], np.array(lengths)[~short]
    assert not len(outside) or inside.max() < outside.min()


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.25, [True, False, False, False]), (0.3, [True, True, False, True])]
)
def test_short_texts(fraction, expected):
    assert short_text_items(["a", "a boat", "a boat at night", "the  sea"], fraction).tolist() == expected
