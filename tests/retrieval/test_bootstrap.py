"""The paired bootstrap against plain loops, its coverage on data with a known difference, and what it refuses."""

import statistics

import numpy as np
import pytest
from numpy.typing import NDArray

from dagnn_core.errors import InputError
from dagnn_core.retrieval import bootstrap
from dagnn_core.retrieval.bootstrap import Difference, bootstrap_mean, paired_bootstrap


def scores(num: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Figures of two methods that find the same queries hard; the true difference of their means is 0.05."""
    rng = np.random.default_rng(seed)
    difficulty = rng.beta(2, 2, size=num)
    challenger, reference = (difficulty + rng.exponential(0.1, size=num) for _ in range(2))
    return challenger + 0.05, reference


def test_the_interval_equals_plain_loops() -> None:
    challenger, reference = scores(20)
    actual = paired_bootstrap(challenger, reference, num_resamples=99, seed=7, level=0.5)
    draws = np.random.default_rng(7).integers(20, size=(99, 20)).tolist()
    means = sorted(
        statistics.fmean(challenger[query] for query in draw) - statistics.fmean(reference[query] for query in draw)
        for draw in draws
    )
    mean = statistics.fmean(challenger) - statistics.fmean(reference)
    expected = (mean, (means[24] + means[25]) / 2, (means[73] + means[74]) / 2)  # quartiles of 99: ranks 25.5 and 74.5
    assert actual == pytest.approx(expected, abs=1e-12)


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    intervals = [paired_bootstrap(*scores(150, seed), num_resamples=400, seed=seed, level=0.9) for seed in range(400)]
    covered = statistics.fmean(interval.low <= 0.05 <= interval.high for interval in intervals)
    assert covered == pytest.approx(0.9, abs=0.045)  # three standard deviations of 400 draws


def test_the_interval_of_a_mean_is_that_of_the_difference_from_nothing() -> None:
    values, _ = scores(40)
    values[3] = np.nan
    nothing = np.where(np.isnan(values), np.nan, 0.0)
    assert bootstrap_mean(values, seed=5) == paired_bootstrap(values, nothing, seed=5)[1:]
    assert bootstrap_mean(np.array([0.25]), seed=5) == (0.25, 0.25)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    intervals = [bootstrap_mean(scores(150, seed)[0], num_resamples=400, seed=seed, level=0.9) for seed in range(400)]
    covered = statistics.fmean(interval.low <= 0.65 <= interval.high for interval in intervals)
    assert covered == pytest.approx(0.9, abs=0.045)


def test_pairing_makes_the_interval_narrow() -> None:
    challenger, reference = scores(300)
    paired = paired_bootstrap(challenger, reference, seed=0)
    shuffled = paired_bootstrap(challenger, np.random.default_rng(0).permutation(reference), seed=0)
    assert shuffled.mean == pytest.approx(paired.mean)
    assert paired.high - paired.low < (shuffled.high - shuffled.low) * 0.7


def test_the_same_seed_gives_the_same_interval_for_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = paired_bootstrap(*scores(50), num_resamples=101, seed=3)
    assert paired_bootstrap(*scores(50), num_resamples=101, seed=3) == whole
    assert paired_bootstrap(*scores(50), num_resamples=101, seed=4) != whole
    for entries in (1, 350):
        monkeypatch.setattr(bootstrap, "BLOCK_ENTRIES", entries)
        assert paired_bootstrap(*scores(50), num_resamples=101, seed=3) == whole


def test_exchanging_the_methods_mirrors_the_interval() -> None:
    challenger, reference = scores(60)
    there, back = (paired_bootstrap(*pair, seed=1) for pair in ((challenger, reference), (reference, challenger)))
    assert (-back.mean, -back.high, -back.low) == pytest.approx(there, abs=1e-12)
    assert paired_bootstrap(reference, reference, seed=1) == Difference(0, 0, 0)


def test_queries_without_a_relevant_item_are_left_out() -> None:
    challenger, reference = scores(40)
    expected = paired_bootstrap(challenger, reference, seed=1)
    places = [0, 7, 40]
    with_nan = [np.insert(values, places, np.nan) for values in (challenger, reference)]
    assert paired_bootstrap(*with_nan, seed=1) == expected


def test_scores_that_are_no_pairs_are_refused() -> None:
    challenger, reference = scores(5)
    with pytest.raises(
        InputError, match=r"challenger have shape \[5\], of the reference \[4\], expected \[Q\] in both"
    ):
        paired_bootstrap(challenger, reference[1:], seed=0)
    with pytest.raises(InputError, match=r"shape \[1, 5\], of the reference \[1, 5\], expected \[Q\]"):
        paired_bootstrap(challenger[None], reference[None], seed=0)
    challenger[[2, 4]] = np.nan
    reference[4] = np.nan
    with pytest.raises(InputError, match=r"1 of 5 queries \(the first: 2\) have a score of one method only"):
        paired_bootstrap(challenger, reference, seed=0)


def test_scores_that_tell_nothing_are_refused() -> None:
    one = np.array([np.nan, 0.5])
    with pytest.raises(InputError, match="1 of 2 queries have finite scores of both methods, expected at least 2"):
        paired_bootstrap(one, one, seed=0)
    with pytest.raises(InputError, match=r"2 of 3 queries have finite scores of both methods, .* none infinite"):
        paired_bootstrap(np.array([np.inf, 0.5, 0.25]), np.zeros(3), seed=0)


@pytest.mark.parametrize(("num_resamples", "level"), [(0, 0.95), (10, 0.0), (10, 1.0), (10, 95.0)])
def test_settings_out_of_range_are_refused(num_resamples: int, level: float) -> None:
    with pytest.raises(InputError, match=f"num_resamples {num_resamples} and level {level}, expected at least one"):
        paired_bootstrap(*scores(5), num_resamples=num_resamples, seed=0, level=level)
