"""From label co-occurrence to the adjacency matrix of the label graph (P-GNN of DAGNN, AAAI 2021).

    M_ij = items with both labels, N_j = items with label j      counts on the training split
    P_ij = M_ij / N_j = P(i | j)                                 conditional probabilities
    A    = w 1[P >= t] + s I                                     thresholded and re-weighted
    Â    = D^-1/2 Aᵀ D^-1/2,  D_ii = Σ_j A_ij                    normalised

The letters are the paper's; the formulas are those of the authors' code (LivXue/GNN4CMR, `util.py`). It divides by the
*column's* count, the transpose of ML-GCN (Chen et al., CVPR 2019), and transposes A while taking degrees from the rows
of A itself. So a graph convolution, which multiplies with Â, lets label i listen to j where P(j | i) >= t, but graph
attention, which takes A as its mask, where P(i | j) >= t: opposite directions on the same counts. Both are kept.
"""

# C labels, N items

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Cooccurrence(NamedTuple):
    """Label statistics of a set of items."""

    counts: NDArray[np.int64]
    """M, [C, C]: items that carry both labels; zero diagonal, so that self-loops come from `self_loop` alone."""
    label_counts: NDArray[np.int64]
    """N, [C]: items that carry the label."""


def count_cooccurrences(labels: NDArray[np.uint8]) -> Cooccurrence:
    """Count labels and pairs of labels.

    Args:
        labels: label matrix Y of the training items, zeros and ones.

    Shape:
        labels [N, C]; counts [C, C], label_counts [C].
    """
    present = labels.astype(np.float64)  # sums below 2^53 are exact, and the product runs on BLAS
    counts = (present.T @ present).astype(np.int64)
    label_counts = counts.diagonal().copy()
    np.fill_diagonal(counts, 0)
    return Cooccurrence(counts=counts, label_counts=label_counts)


def conditional_probabilities(counts: NDArray[np.int64], label_counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """P_ij = M_ij / N_j, an estimate of P(label i is present | label j is present).

    Raises:
        ValueError: a label never occurs, so its column would be 0/0 (NaN in all of Â in the authors' code).

    Shape:
        counts [C, C], label_counts [C]; result [C, C].
    """
    if (label_counts <= 0).any():
        absent = np.flatnonzero(label_counts <= 0).tolist()
        raise ValueError(f"every label must occur, but those at {absent} do not: P(i | j) is undefined for them")
    return counts / label_counts.astype(np.float64)


def threshold_adjacency(
    conditional: NDArray[np.float64], *, threshold: float, edge_weight: float, self_loop: float
) -> NDArray[np.float64]:
    """A = edge_weight · 1[P >= threshold] + self_loop · I (AAAI 2021: 0.4, 0.5 and 1).

    The diagonal of P takes part, as in the authors' code: counts with M_ii >= threshold · N_i make self-loops of 1.5.
    Ours have a zero diagonal, as their oldest surviving matrix has.

    Shape:
        conditional [C, C]; result [C, C].
    """
    return edge_weight * (conditional >= threshold) + self_loop * np.eye(len(conditional))


def isolated_labels(edges: NDArray[np.bool_]) -> list[int]:
    """Labels without an edge in either direction.

    Shape:
        edges [C, C], with a false diagonal.
    """
    return np.flatnonzero(~(edges.any(axis=0) | edges.any(axis=1))).tolist()


def normalize_adjacency(adjacency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Â_ij = d_i^-1/2 · A_ji · d_j^-1/2 with the row sums d of A, which must be positive.

    The authors take the root in float32; float64 here differs by about 4e-8.

    Shape:
        adjacency [C, C]; result [C, C].
    """
    scale = adjacency.sum(axis=1) ** -0.5
    normalized: NDArray[np.float64] = scale[:, None] * adjacency.T * scale[None, :]
    return normalized
