"""Reliability diagrams by hand, and of probabilities that are calibrated by construction."""

import numpy as np
import pytest

from dagnn_core.retrieval.calibration import NUM_BINS, reliability


def test_a_diagram_by_hand() -> None:
    probabilities = np.array([[0.02, 0.95], [0.08, 0.99], [0.05, 1.0]])
    labels = np.array([[0, 1], [0, 1], [1, 0]], dtype=np.uint8)
    found = reliability(probabilities, labels)
    assert found.sizes.tolist() == [3, *[0] * (NUM_BINS - 2), 3]
    assert found.predicted[[0, -1]] == pytest.approx([0.05, 0.98])
    assert found.observed[[0, -1]] == pytest.approx([1 / 3, 2 / 3])
    assert np.isnan(found.predicted[1:-1]).all() and np.isnan(found.observed[1:-1]).all()
    assert found.error == pytest.approx((abs(0.05 - 1 / 3) + abs(0.98 - 2 / 3)) / 2)


def test_calibrated_probabilities_have_a_small_error_and_others_a_large_one() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((4000, 5))
    labels = (rng.random(probabilities.shape) < probabilities).astype(np.uint8)
    assert reliability(probabilities, labels).error < 0.01
    assert reliability(probabilities**3, labels).error > 0.2
