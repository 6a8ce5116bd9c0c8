"""Where the labels of a graph are drawn: communities apart from each other, no node or name over another."""

# C labels; lengths are in points (1/72 inch)

from collections.abc import Sequence

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from dagnn_core.label_graph.cooccurrence import isolated_labels

COMMUNITY_GAP = 18.0
_PULLS, _PUSHES = 500, 3000  # steps of the layout inside a community
_GRAVITY = 0.03
_LANDSCAPE = np.array([1.0, 1.2])  # the graph is a little wider than high: distances in height count more


def find_communities(conditional: NDArray[np.float64], threshold: float) -> list[list[int]]:
    """Group the labels by greedy modularity maximisation (Clauset, Newman and Moore 2004) over the kept edges.

    Returns:
        Label numbers of each community, the largest first; labels without an edge form the last group.
    """
    edges: NDArray[np.bool_] = np.greater_equal(conditional, threshold)
    isolated = isolated_labels(edges)
    connected = [label for label in range(len(edges)) if label not in isolated]
    groups: list[list[int]] = []
    if connected:
        kept = np.where(edges, conditional, 0.0)
        graph = nx.from_numpy_array(kept + kept.T).subgraph(connected)
        groups = [sorted(group) for group in nx.community.greedy_modularity_communities(graph, weight="weight")]
    return [*groups, isolated] if isolated else groups


def place_labels(
    communities: Sequence[Sequence[int]], boxes: NDArray[np.float64], affinity: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Place each label inside its community, and the communities beside those that they have most to do with.

    Args:
        communities: a partition of the labels.
        boxes: [C, 2], width and height that each label needs.
        affinity: [C, C], symmetric: how close two labels should be.

    Returns:
        [C, 2], centres of the boxes, which do not overlap.
    """
    positions = np.zeros_like(boxes)
    extents = []
    for members in communities:
        inside = _spread(boxes[members], affinity[np.ix_(members, members)])
        low, high = bounding_box(inside, boxes[members])
        positions[members] = inside - (low + high) / 2
        extents.append(high - low + COMMUNITY_GAP)
    between = np.array([[affinity[np.ix_(a, b)].mean() for b in communities] for a in communities])
    for members, centre in zip(communities, _pack(np.array(extents), between), strict=True):
        positions[members] += centre
    return positions


def bounding_box(
    centres: NDArray[np.float64], boxes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower left and upper right corner of the boxes together."""
    return (centres - boxes / 2).min(axis=0), (centres + boxes / 2).max(axis=0)


def _spread(boxes: NDArray[np.float64], affinity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Force-directed positions, pulled together and pushed apart until the boxes are close but do not overlap."""
    layout = nx.spring_layout(nx.from_numpy_array(affinity), method="force", iterations=200, seed=0)
    centres = np.array([layout[node] for node in range(len(boxes))])
    centres *= np.sqrt(boxes.prod(axis=1).sum()) / max(np.abs(centres).max(), 1e-9)
    for step in range(_PULLS + _PUSHES):
        if step < _PULLS:
            centres -= _GRAVITY * _LANDSCAPE * (centres - centres.mean(axis=0))
        push = _overlap_forces(centres, boxes)
        if step >= _PULLS and not push.any():
            break
        centres += push
    return centres


def _overlap_forces(centres: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of every pair's overlap, along the axis where it is smaller."""
    offsets = centres[:, None] - centres[None]
    overlap = (boxes[:, None] + boxes[None]) / 2 - np.abs(offsets)
    meets = (overlap > 0.01).all(axis=2) & ~np.eye(len(boxes), dtype=bool)
    shorter = overlap == overlap.min(axis=2, keepdims=True)
    push: NDArray[np.float64] = np.where(meets[..., None] & shorter, overlap * np.sign(offsets), 0.0).sum(axis=1)
    return push / 2


def _pack(boxes: NDArray[np.float64], affinity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place the boxes one by one, the largest first, each on the free spot nearest to those that it belongs to."""
    width, height = 0.6 * boxes.sum(axis=0)  # wide enough for any order of the boxes
    spots = np.stack(np.meshgrid(np.linspace(-width, width, 201), np.linspace(-height, height, 201)), axis=-1)
    spots = spots.reshape(-1, 2)
    centres = np.zeros_like(boxes)
    order = np.argsort(-boxes.prod(axis=1), kind="stable")
    for number, box in enumerate(order[1:], start=1):
        placed = order[:number]
        offsets = np.abs(spots[:, None] - centres[placed])
        free = (offsets >= (boxes[box] + boxes[placed]) / 2).any(axis=2).all(axis=1)
        pull = 0.3 + affinity[box, placed] / max(affinity[box, placed].max(), 1e-9)
        cost = np.linalg.norm(offsets * _LANDSCAPE, axis=2) @ pull
        centres[box] = spots[np.where(free, cost, np.inf).argmin()]
    return centres
