"""Two models on the same queries: how much one is better, how sure that is, and corrections for many looks.

The one home of a comparison: the gate of promotions and `dagnn compare` both take it from here.

Shapes: Q queries of each direction, query q of both being the same item.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from dagnn_core.retrieval.bootstrap import Difference, paired_bootstrap

ByDirection = Mapping[str, NDArray[np.float64]]
"""Direction -> a score of every query, [Q]; NaN where nothing is relevant."""
ALL = slice(None)


class PairedTest(NamedTuple):
    """A difference of two means, and how likely one as large is where there is none."""

    difference: Difference
    p_value: float
    """Of the paired t-test, two-sided, uncorrected."""
    num_queries: int
    """Items that have a score; an item's two queries count once, as they depend on each other."""


def mean_of_directions(
    scores: ByDirection, directions: Iterable[str], part: NDArray[np.bool_] | slice = ALL
) -> NDArray[np.float64]:
    """An item's mean score over directions: its two queries depend on each other, so they count as one.

    Args:
        scores: by direction.
        directions: one, or both.
        part: which items; all by default.

    Shape:
        [Q] each, part [Q] -> [Q] of the part.
    """
    mean: NDArray[np.float64] = np.mean([scores[direction][part] for direction in directions], axis=0)
    return mean


def compare_queries(
    challenger: ByDirection,
    reference: ByDirection,
    directions: Iterable[str],
    part: NDArray[np.bool_] | slice = ALL,
    *,
    num_resamples: int = 2000,
    seed: int,
    level: float = 0.95,
) -> Difference:
    """By how much the challenger's mean exceeds the reference's, with its interval; see `paired_bootstrap`.

    Args:
        challenger: scores of one model, such as average precisions.
        reference: scores of the other model for the same items.
        directions: one, or both, of which an item has the mean.
        part: which items; all by default.
        num_resamples: of the bootstrap.
        seed: of the resamples.
        level: probability that the interval covers the difference.

    Raises:
        InputError: as `paired_bootstrap`: fewer than two queries with scores, or not the same queries.
    """
    directions = tuple(directions)
    return paired_bootstrap(
        mean_of_directions(challenger, directions, part),
        mean_of_directions(reference, directions, part),
        num_resamples=num_resamples,
        seed=seed,
        level=level,
    )


def paired_test(
    challenger: ByDirection,
    reference: ByDirection,
    directions: Iterable[str],
    part: NDArray[np.bool_] | slice = ALL,
    *,
    seed: int,
) -> PairedTest:
    """As `compare_queries`, with a p-value.

    The paired t-test of retrieval metrics keeps its level and has the most power of the usual tests (Urbano, Lima and
    Hanjalic, SIGIR 2019).
    """
    directions = tuple(directions)
    difference = compare_queries(challenger, reference, directions, part, seed=seed)
    new, old = (mean_of_directions(scores, directions, part) for scores in (challenger, reference))
    changes = (new - old)[~np.isnan(new)]
    return PairedTest(difference, paired_p_value(changes), len(changes))


def paired_p_value(changes: NDArray[np.float64]) -> float:
    """Two-sided p-value of the paired t-test; 1 where nothing has changed, 0 where all has by the same.

    Shape:
        changes [Q], at least two, finite.
    """
    error = changes.std(ddof=1) / np.sqrt(len(changes))
    mean = abs(changes.mean())
    if error <= 1e-12 * mean or mean == 0:  # what differs by rounding differs by the same
        return float(mean == 0)
    return float(2 * stdtr(len(changes) - 1, -mean / error))


def welch_p_value(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Two-sided p-value that two sets of queries have the same mean (Welch's t-test).

    Shape:
        one [Q1], other [Q2], at least two each, finite.
    """
    variances = [float(scores.var(ddof=1)) / len(scores) for scores in (one, other)]
    mean, variance = abs(float(one.mean() - other.mean())), sum(variances)
    if variance <= 1e-24 * mean**2 or mean == 0:
        return float(mean == 0)
    freedom = variance**2 / sum(
        part**2 / (len(scores) - 1) for part, scores in zip(variances, (one, other), strict=True)
    )
    return float(2 * stdtr(freedom, -mean / np.sqrt(variance)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of looks (Holm, 1979): below α, at most α of all such tables have a false one.

    It holds whatever the looks have to do with each other, and never says less than Bonferroni's correction.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = highest
    return corrected
