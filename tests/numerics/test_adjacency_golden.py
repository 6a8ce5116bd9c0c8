"""The label graph equals the authors' published implementation: counts to adjacency to normalised adjacency.

The numbers were made by running the authors' code (LivXue/GNN4CMR, `util.py`) in float64. The sets that start with
`mirflickr_` are three readings of the diagonal of the same real counts.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from dagnn_core.config.label_graph import LabelGraphConfig
from dagnn_core.label_graph.cooccurrence import conditional_probabilities, normalize_adjacency, threshold_adjacency

GOLDEN = Path(os.environ.get("DAGNN_GOLDEN", Path(__file__).parents[1] / "golden"))
WEIGHTS = {"edge_weight": LabelGraphConfig().edge_weight, "self_loop": LabelGraphConfig().self_loop}
SETS = {
    "synthetic_c2": 2,
    "synthetic_c5": 5,
    "synthetic_c7": 7,
    "synthetic_c24": 24,
    "mirflickr_zero_diagonal": 24,
    "mirflickr_diagonal_counted_once": 24,
    "mirflickr_diagonal_counted_twice": 24,
}


@pytest.mark.parametrize("name", SETS)
def test_published_matrices_are_reproduced(name):
    with np.load(GOLDEN / "adjacency.npz", allow_pickle=False) as file:
        numbers = {key: file[key] for key in file.files if key.startswith(f"{name}/")}
    conditional = conditional_probabilities(numbers[f"{name}/cooccurrence_counts"], numbers[f"{name}/label_counts"])
    cases = [key.removesuffix("/threshold") for key in numbers if key.endswith("/threshold")]
    assert len(cases) >= 4
    for case in cases:
        adjacency = threshold_adjacency(conditional, threshold=float(numbers[f"{case}/threshold"]), **WEIGHTS)
        assert adjacency.shape == (SETS[name], SETS[name])
        np.testing.assert_array_equal(adjacency, numbers[f"{case}/adjacency"])
        np.testing.assert_allclose(
            normalize_adjacency(adjacency), numbers[f"{case}/adjacency_normalized"], rtol=0, atol=1e-14
        )


@pytest.mark.parametrize(
    ("reading", "self_loop"), [("zero_diagonal", 1.0), ("diagonal_counted_once", 1.5), ("diagonal_counted_twice", 1.5)]
)
def test_self_loops_of_mirflickr_follow_the_diagonal(reading, self_loop):
    with np.load(GOLDEN / "adjacency.npz", allow_pickle=False) as file:
        counts, label_counts = (file[f"mirflickr_{reading}/{key}"] for key in ("cooccurrence_counts", "label_counts"))
    adjacency = threshold_adjacency(conditional_probabilities(counts, label_counts), threshold=0.4, **WEIGHTS)
    assert (adjacency.diagonal() == self_loop).all()
    assert (adjacency > 0).sum() - len(adjacency) == 77
