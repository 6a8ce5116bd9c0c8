"""Slices: one that was planted is found and holds, and in noise nothing is sure."""

import re

import numpy as np
import pytest

from dagnn_core.reports.evaluation.queries import SCORES, Queries
from dagnn_core.reports.evaluation.slices import find_slices
from dagnn_core.retrieval.directions import DIRECTIONS


def make_queries(average_precision: np.ndarray, has_label: np.ndarray, lengths: np.ndarray) -> Queries:
    size = len(average_precision)
    return Queries(
        ids=tuple(map(str, range(size))),
        labels=tuple(("boat", "sea") if has else ("sea",) for has in has_label),
        texts=("",) * size,
        text_lengths=lengths,
        brightness=np.full(size, np.nan),
        scores={name: dict.fromkeys(DIRECTIONS, average_precision) for name in SCORES},
        partner_rank=dict.fromkeys(DIRECTIONS, np.ones(size, dtype=np.int64)),
        num_relevant=dict.fromkeys(DIRECTIONS, np.ones(size, dtype=np.int64)),
        retrieved=dict.fromkeys(DIRECTIONS, [[]] * size),
        cosines=dict.fromkeys(DIRECTIONS, [[]] * size),
    )


@pytest.fixture
def traits() -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng, rng.random(400) < 0.4, rng.integers(1, 30, 400)


def test_a_planted_slice_is_found_and_measured_on_other_items(
    traits: tuple[np.random.Generator, np.ndarray, np.ndarray],
) -> None:
    rng, has_label, lengths = traits
    is_bad = has_label & (lengths <= 10)
    scores = np.where(is_bad, 0.3, 0.8) + 0.1 * rng.normal(size=400)
    scores[::50] = np.nan
    worst, *others = find_slices(make_queries(scores, has_label, lengths))
    assert "with “boat”" in worst.rule and re.search(r"words of the text (\d to 10|10 or less)", worst.rule)
    assert is_bad[list(worst.items)].all() and not np.isnan(scores[list(worst.items)]).any()
    assert worst.p_value < 1e-6 and worst.interval.low < worst.mean < worst.interval.high < 0.4 < worst.rest
    assert scores[list(worst.items)].tolist() == sorted(scores[list(worst.items)])
    assert [part.mean for part in others] == sorted(part.mean for part in others)


def test_noise_makes_no_sure_slice(traits: tuple[np.random.Generator, np.ndarray, np.ndarray]) -> None:
    rng, has_label, lengths = traits
    sure = sum(
        any(part.p_value < 0.05 for part in find_slices(make_queries(rng.random(400), has_label, lengths)))
        for _ in range(20)
    )
    assert sure <= 3, "of twenty data sets, one is expected"


def test_too_few_items_and_items_that_are_all_the_same(
    traits: tuple[np.random.Generator, np.ndarray, np.ndarray],
) -> None:
    rng, has_label, lengths = traits
    assert find_slices(make_queries(rng.random(400)[:39], has_label[:39], lengths[:39])) == []
    assert find_slices(make_queries(np.full(400, 0.5), has_label, lengths)) == []
