"""Slices of a test split: the queries that a model with a good mean may still fail."""

# N items, C labels

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rare_label_items(
    labels: NDArray[np.uint8], train_counts: NDArray[np.integer], fraction: float
) -> NDArray[np.bool_]:
    """Which items carry a rare label: of the labels that occur among them, one of the least frequent in training.

    Args:
        labels: label matrix of the items.
        train_counts: training items with each label.
        fraction: this fraction of the labels that occur is rare, rounded up to whole labels; of equally frequent ones
            the first.

    Shape:
        labels [N, C], train_counts [C] -> [N].
    """
    occurring = np.flatnonzero(labels.any(axis=0))
    order = occurring[np.argsort(train_counts[occurring], kind="stable")]
    return np.array(labels[:, order[: math.ceil(fraction * len(order))]].any(axis=1))


def short_text_items(texts: Sequence[str], fraction: float) -> NDArray[np.bool_]:
    """Which texts are short: no longer, in words, than the text at this fraction of all in order of length.

    Args:
        texts: of the items, at least one.
        fraction: of the texts; with equal lengths, more of them.

    Shape:
        N texts -> [N].
    """
    lengths = np.array([len(text.split()) for text in texts])
    longest = np.sort(lengths)[math.ceil(fraction * len(lengths)) - 1]
    return np.array(lengths <= longest)
