"""Whether label probabilities are calibrated: of the labels given 0.8, are 80 % there?

Shapes: N items, C labels, B bins.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 10


class Reliability(NamedTuple):
    """A reliability diagram: probabilities in bins of equal width, each beside how often the label was there."""

    sizes: NDArray[np.int64]
    """Probabilities in each bin, [B]."""
    predicted: NDArray[np.float64]
    """Their mean, [B]; NaN of an empty bin."""
    observed: NDArray[np.float64]
    """Share of them whose label the item has, [B]; NaN of an empty bin."""

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015): mean |predicted - observed|."""
        filled = self.sizes > 0
        gaps = np.abs(self.predicted[filled] - self.observed[filled])
        return float(gaps @ self.sizes[filled] / self.sizes.sum())


def reliability(probabilities: NDArray[np.floating], labels: NDArray[np.uint8]) -> Reliability:
    """The diagram of all probabilities together, of one label or of many.

    Args:
        probabilities: of each item and label, 0 to 1.
        labels: whether the item has the label.

    Shape:
        the same for both, at least one entry; any.
    """
    flat, truth = probabilities.ravel().astype(np.float64), labels.ravel().astype(np.float64)
    bins = np.minimum((flat * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    sizes = np.bincount(bins, minlength=NUM_BINS)
    divisor = np.where(sizes == 0, np.nan, sizes)
    predicted = np.bincount(bins, flat, minlength=NUM_BINS) / divisor
    observed = np.bincount(bins, truth, minlength=NUM_BINS) / divisor
    return Reliability(sizes, predicted, observed)
