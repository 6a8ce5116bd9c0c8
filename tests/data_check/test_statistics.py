"""Differences count where they are significant: noise does not, and the measures are those of the books."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from dagnn_core.data_check.statistics import distribution_shifts, label_shifts, unseen_words

WORDS = [f"{a}{b}{c}" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyzaeio"]


def draw_labels(rng: np.random.Generator, size: int, shares: np.ndarray) -> np.ndarray:
    return (rng.random((size, len(shares))) < shares).astype(np.uint8)


def test_cohens_h_of_a_significant_difference() -> None:
    one = np.repeat([[1, 1], [0, 1]], [100, 100], axis=0).astype(np.uint8)
    other = np.repeat([[1, 1], [0, 1]], [20, 180], axis=0).astype(np.uint8)
    shifts = label_shifts(one, other)
    np.testing.assert_allclose(shifts, [2 * np.arcsin(np.sqrt(0.5)) - 2 * np.arcsin(np.sqrt(0.1)), 0])


def test_what_few_items_show_is_not_significant() -> None:
    assert label_shifts(np.ones((4, 1), np.uint8), np.zeros((4, 1), np.uint8)).tolist() == [0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(20, 400), st.integers(20, 400))
def test_noise_is_no_difference(seed: int, size: int, other_size: int) -> None:
    """But with a probability of at most 0.001: so the seeds are always the same."""
    rng = np.random.default_rng(seed)
    shares = rng.beta(0.5, 4, 30)
    assert not label_shifts(draw_labels(rng, size, shares), draw_labels(rng, other_size, shares)).any()
    one, other = rng.normal(size=(size, 40)).round(1), rng.normal(size=(other_size, 40)).round(1)
    assert not distribution_shifts(one, other).any()


def test_distances_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (300, 3)).round(1), rng.normal([0, 1, 2], 1, (400, 3)).round(1)
    expected = [ks_2samp(one[:, column], other[:, column]).statistic for column in range(3)]
    np.testing.assert_allclose(distribution_shifts(one, other), [0, *expected[1:]])


def draw_texts(rng: np.random.Generator, count: int, words: list[str]) -> list[str]:
    weights = 1 / np.arange(1, len(words) + 1)  # Zipf's law
    return [" ".join(rng.choice(words, rng.integers(3, 12), p=weights / weights.sum())) for _ in range(count)]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([50, 200, 800]))
def test_rare_words_are_expected(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    excess, _ = unseen_words(draw_texts(rng, count, WORDS), draw_texts(rng, count, WORDS))
    assert excess < 0.05


def test_a_new_vocabulary_is_found() -> None:
    rng = np.random.default_rng(0)
    texts = [f"{text} zebra zebra" if row % 2 else text for row, text in enumerate(draw_texts(rng, 400, WORDS))]
    excess, words = unseen_words(texts, draw_texts(rng, 400, WORDS))
    assert excess == pytest.approx(0.07, abs=0.03)
    assert words[0] == "zebra"


def test_texts_without_words() -> None:
    assert unseen_words(["12 34"], ["word"]) == (0.0, [])
    assert unseen_words(["word"], ["!"]) == (0.0, [])
