"""The share of relevant pairs is that of a count of all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagnn_core.retrieval import relevance
from dagnn_core.retrieval.relevance import relevant_pairs


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 5))
def test_all_pairs_are_the_oracle(seed: int, size: int, block: int) -> None:
    labels = (np.random.default_rng(seed).random((size, 3)) < 0.4).astype(np.uint8)
    shared = [bool((labels[a] & labels[b]).any()) for a in range(size) for b in range(size) if a != b]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relevance, "BLOCK_ITEMS", block)
        assert relevant_pairs(labels, seed=1) == pytest.approx(np.mean(shared))


@pytest.mark.parametrize("size", [0, 1])
def test_there_are_no_pairs_of_fewer_than_two(size: int) -> None:
    assert relevant_pairs(np.ones((size, 2), np.uint8), seed=1) == 0.0


def test_a_sample_is_close() -> None:
    labels = (np.random.default_rng(0).random((20_000, 1)) < 0.95).astype(np.uint8)
    assert relevant_pairs(labels, seed=1) == pytest.approx(labels.mean() ** 2, abs=0.01)
