"""Comparisons of two models against scipy's tests, hand-made tables, and what cannot be compared."""

import math

import numpy as np
import pytest
from scipy import stats

from dagnn_core.errors import InputError
from dagnn_core.retrieval.bootstrap import paired_bootstrap
from dagnn_core.retrieval.comparison import (
    compare_queries,
    holm,
    paired_p_value,
    paired_test,
    welch_p_value,
)

RNG = np.random.default_rng(0)
NEW, OLD = ({"i2t": RNG.random(60), "t2i": RNG.random(60)} for _ in range(2))
NEW["i2t"][3] = OLD["i2t"][3] = NEW["t2i"][3] = OLD["t2i"][3] = np.nan


def test_both_directions_of_an_item_count_once() -> None:
    new, old = ((scores["i2t"] + scores["t2i"]) / 2 for scores in (NEW, OLD))
    expected = paired_bootstrap(new, old, num_resamples=300, seed=5, level=0.9)
    assert compare_queries(NEW, OLD, ("i2t", "t2i"), num_resamples=300, seed=5, level=0.9) == expected


def test_p_values_are_those_of_scipy() -> None:
    tested = paired_test(NEW, OLD, ["t2i"], seed=1)
    defined = ~np.isnan(NEW["t2i"])
    expected = stats.ttest_rel(NEW["t2i"][defined], OLD["t2i"][defined]).pvalue
    assert tested.p_value == pytest.approx(expected) and tested.num_queries == 59
    assert tested.difference == compare_queries(NEW, OLD, ["t2i"], seed=1)
    part = np.arange(60) < 20
    assert paired_test(NEW, OLD, ["i2t"], part, seed=1).num_queries == 19
    one, other = RNG.random(12), RNG.random(31) ** 2
    assert welch_p_value(one, other) == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue)


@pytest.mark.parametrize(("changes", "p_value"), [([0.0, 0.0, 0.0], 1.0), ([0.1, 0.1, 0.1], 0.0), ([-0.2, 0.2], 1.0)])
def test_what_does_not_vary_has_a_p_value_too(changes: list[float], p_value: float) -> None:
    assert paired_p_value(np.array(changes)) == p_value


def test_welch_of_what_does_not_vary() -> None:
    ones = np.ones(4)
    assert welch_p_value(ones, ones) == 1.0
    assert welch_p_value(ones, 0 * ones) == 0.0


def test_holm_by_hand() -> None:
    # sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, none below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_query_and_other_queries_cannot_be_compared() -> None:
    with pytest.raises(InputError, match=r"1 of 1 queries have finite scores .* at least 2"):
        paired_test(NEW, OLD, ["i2t"], np.arange(60) == 0, seed=1)
    with pytest.raises(InputError, match="have a score of one method only"):
        paired_test({"i2t": np.array([0.5, math.nan])}, {"i2t": np.array([0.5, 0.5])}, ["i2t"], seed=1)
