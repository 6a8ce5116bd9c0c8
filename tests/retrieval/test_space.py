"""Distance of the modalities and hubness, by hand and against scipy."""

import numpy as np
import pytest
from scipy.stats import skew

from dagnn_core.retrieval.space import centroid_distance, occurrences, skewness


def test_distance_of_the_means_on_the_unit_sphere() -> None:
    image, text = np.array([[3.0, 0.0], [0.5, 0.0], [0.0, 0.0]]), np.array([[-2.0, 0.0], [0.0, 7.0], [0.0, 1.0]])
    # means (1, 0), the all-zero embedding left out, and (-1/3, 2/3)
    assert centroid_distance(image, text) == pytest.approx(np.hypot(4 / 3, 2 / 3))
    assert centroid_distance(image, 2 * image) == 0.0
    assert centroid_distance(0 * image, 0 * text) == 0.0


def test_hubness_counts_and_their_skewness() -> None:
    order = np.array([[0, 1], [0, 2], [0, 1]])
    counts = occurrences(order, 5)
    assert counts.tolist() == [3, 2, 1, 0, 0]
    assert skewness(counts) == pytest.approx(skew(counts))
    assert skewness(np.array([2, 2, 2])) == 0.0
