"""Measures of difference that ignore noise: an effect counts where it is significant, corrected for many tests."""

# N and M items, C labels, D dimensions

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogorov
from scipy.stats import fisher_exact

from dagnn_core.features.tokens import tokenize

ALPHA = 0.001  # probability that a finding about two samples of one distribution is more than 0
Z_ALPHA = 3.09  # the one-sided normal quantile of ALPHA


def label_shifts(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much the frequency of each label differs: Cohen's h = |2 asin √p - 2 asin √q|, 0 where not significant.

    Fisher's exact test of two proportions for each label, with Bonferroni's correction: valid for rare labels, and
    however labels go together. Cohen, "Statistical Power Analysis", 2nd ed. (1988), ch. 6.

    Shape:
        one [N, C], other [M, C]; result [C].
    """
    counts = [labels.sum(axis=0, dtype=np.int64) for labels in (one, other)]
    sizes = len(one), len(other)
    angles = [2 * np.arcsin(np.sqrt(count / max(size, 1))) for count, size in zip(counts, sizes, strict=True)]
    p_values = [fisher_exact([[a, sizes[0] - a], [b, sizes[1] - b]]).pvalue for a, b in zip(*counts, strict=True)]
    significant = np.array(p_values) * len(p_values) < ALPHA
    shifts: NDArray[np.float64] = np.where(significant, np.abs(angles[0] - angles[1]), 0.0)
    return shifts


def distribution_shifts(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Two-sample Kolmogorov-Smirnov distance of each dimension, 0 where not significant.

    Asymptotic p-values, which are conservative where values are tied, with Bonferroni's correction.

    Shape:
        one [N, D], other [M, D]; result [D].
    """
    num_one, num_other = len(one), len(other)
    distances = np.array([_distance(one[:, column], other[:, column]) for column in range(one.shape[1])])
    p_values = kolmogorov(distances * np.sqrt(num_one * num_other / (num_one + num_other)))
    return np.where(p_values * len(distances) < ALPHA, distances, 0.0)


def _distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    one, other = np.sort(one), np.sort(other)
    values = np.concatenate([one, other])
    below_one, below_other = (np.searchsorted(sample, values, side="right") / len(sample) for sample in (one, other))
    return float(np.abs(below_one - below_other).max())


def unseen_words(texts: Sequence[str], known_texts: Sequence[str]) -> tuple[float, list[str]]:
    """Fraction of words that are not in the known texts, beyond what is to be expected of texts like those.

    A word counts once in a text. Of more texts like the known ones, a fraction n1 / n of the words is unseen, where n1
    of their n words occur once, with a variance of (n1 + 2 n2) / n² (Good, Biometrika 1953; n2 occur twice). The excess
    is 0 where it is not significant against that and the variance between the texts.

    Returns:
        The excess, and the unseen words, the most frequent first.
    """
    known = Counter(word for text in known_texts for word in set(tokenize(text)))
    words = [set(tokenize(text)) for text in texts]
    num_known, num_words = known.total(), sum(map(len, words))
    if not num_known or not num_words:
        return 0.0, []
    unseen = Counter(word for found in words for word in found if word not in known)
    times = Counter(known.values())
    expected = times[1] / num_known
    per_text = np.array([sum(word not in known for word in found) - expected * len(found) for found in words])
    excess = float(per_text.sum() / num_words)
    error = np.hypot(per_text.std() * np.sqrt(len(words)) / num_words, np.sqrt(times[1] + 2 * times[2]) / num_known)
    ordered = sorted(unseen, key=lambda word: (-unseen[word], word))
    return (excess if excess > Z_ALPHA * error else 0.0), ordered
