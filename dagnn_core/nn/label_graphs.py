"""The graph that the label GNN runs on: counted once (P-GNN, AAAI 2021) or learned (I-GNN, TPAMI 2022).

Shapes: C labels, e label-embedding dimension, K similarity metrics.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class GraphTensors(NamedTuple):
    """The label graph as a network takes it."""

    embeddings: Tensor
    """E [C, e]."""
    adjacency: Tensor
    """A [C, C], thresholded, re-weighted, with self-loops."""
    normalized: Tensor
    """Â [C, C]."""
    threshold: float
    """t; the learned graph cuts its similarities there."""
    trains_embeddings: bool = False
    """Whether E is trained on a fixed graph, too."""


class GraphState(NamedTuple):
    """Nodes and edges of one forward pass."""

    nodes: Tensor
    """H⁰ = E, [C, e]."""
    normalized: Tensor
    """Â [C, C]: a graph convolution multiplies with it."""
    neighbours: Tensor
    """bool [C, C]: graph attention of label i runs over the labels j with a true entry."""


class FixedGraph(nn.Module):
    """P-GNN: counted on the training labels and constant; so are its node vectors, unless they are to be trained.

    Attention takes A itself as mask, convolution the transposed and normalised Â, as published: label i attends to j
    where P(i | j) >= t, but convolves over j where P(j | i) >= t (with P(i | j) as the conditional probability).
    """

    label_embeddings: Tensor
    normalized: Tensor
    neighbours: Tensor

    def __init__(self, graph: GraphTensors) -> None:
        super().__init__()
        if graph.trains_embeddings:
            self.label_embeddings = nn.Parameter(graph.embeddings.clone())
        else:
            self.register_buffer("label_embeddings", graph.embeddings.clone())
        self.register_buffer("normalized", graph.normalized.clone())
        self.register_buffer("neighbours", graph.adjacency > 0)
        self.threshold = graph.threshold

    def forward(self) -> GraphState:
        """The graph as it is."""
        return GraphState(self.label_embeddings, self.normalized, self.neighbours)

    def extended(self, vectors: Tensor) -> GraphState:
        """The graph with further labels, which listen to those whose vectors have a cosine of t or more, one at least.

        An edge weighs what the edges of the graph do in the mean, in self-loops.

        Shape:
            vectors [U, e] -> the graph of C + U labels.
        """
        cosines = _cosines_of(vectors, self.label_embeddings)
        edges = (cosines >= self.threshold) | (cosines == cosines.amax(dim=1, keepdim=True))
        degrees = 1 / self.normalized.diagonal()  # Â does not change with the scale of A: self-loops are 1
        weights = self.normalized * (degrees[:, None] * degrees).sqrt()
        is_edge = (weights > 0) & ~torch.eye(len(weights), dtype=torch.bool, device=weights.device)
        weight = weights[is_edge].mean() if is_edge.any() else weights.new_tensor(1.0)
        return _with_rows(self(), vectors, weight * edges, degrees)


class LearnedGraph(nn.Module):
    """I-GNN: node vectors and edges are learned together, from one training step to the next.

    A₀ = [cos(E, E)]_t at initialisation; S = [1/K Σ_p cos(E∘w_p, E∘w_p)]_t now; A = λ A₀ + (1 - λ) S;
    Â = D^-1/2 Aᵀ D^-1/2, where [·]_t sets entries below the threshold t to 0, and gradients pass the others.

    Args:
        graph: node vectors at the start, and the threshold.
        num_metrics: K weighted cosine metrics w_p, drawn from U(0.3, 0.6).
        mix: λ, the share of the graph at the start (published: 0.5).
    """

    initial: Tensor

    def __init__(self, graph: GraphTensors, *, num_metrics: int, mix: float) -> None:
        super().__init__()
        self.label_embeddings = nn.Parameter(graph.embeddings.clone())
        self.metrics = nn.Parameter(torch.empty(num_metrics, graph.embeddings.shape[1]).uniform_(0.3, 0.6))
        self.threshold = graph.threshold
        self.mix = mix
        self.register_buffer("initial", self._cut(_cosines(graph.embeddings)))

    def forward(self) -> GraphState:
        """Compute the graph of the present node vectors and metrics."""
        adjacency = self._adjacency()
        scale = adjacency.sum(dim=1) ** -0.5
        normalized = scale[:, None] * adjacency.T * scale
        return GraphState(self.label_embeddings, normalized, normalized > 0)

    def extended(self, vectors: Tensor) -> GraphState:
        """The graph with further labels, which listen to others as the trained labels do to each other.

        Their share of A₀ is the cosine with the node vectors of now: those of the start are not kept.

        Shape:
            vectors [U, e] -> the graph of C + U labels.
        """
        similarity = _cosines_of(vectors * self.metrics[:, None], self.label_embeddings * self.metrics[:, None])
        edges = self.mix * self._cut(_cosines_of(vectors, self.label_embeddings))
        edges = edges + (1 - self.mix) * self._cut(similarity.mean(dim=0))
        return _with_rows(self(), vectors, edges, self._adjacency().sum(dim=1))

    def _adjacency(self) -> Tensor:
        weighted = self.label_embeddings * self.metrics[:, None]  # [K, C, e]
        return self.mix * self.initial + (1 - self.mix) * self._cut(_cosines(weighted).mean(dim=0))

    def _cut(self, similarity: Tensor) -> Tensor:
        return torch.where(similarity >= self.threshold, similarity, 0)


def _cosines(vectors: Tensor) -> Tensor:
    unit = functional.normalize(vectors, dim=-1)
    return unit @ unit.mT


def _cosines_of(vectors: Tensor, others: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=-1) @ functional.normalize(others, dim=-1).mT


def _with_rows(graph: GraphState, vectors: Tensor, edges: Tensor, degrees: Tensor) -> GraphState:
    """A graph with further labels that listen to its own by some edges, and to themselves by 1; nobody listens to them.

    Shape:
        vectors [U, e], edges [U, C], degrees of A [C] -> the graph of C + U labels.
    """
    num_labels, num_further = len(degrees), len(vectors)
    own_degrees = edges.sum(dim=1) + 1
    below = edges / (own_degrees[:, None] * degrees).sqrt()
    own = torch.diag(1 / own_degrees)
    normalized = torch.cat([functional.pad(graph.normalized, (0, num_further)), torch.cat([below, own], dim=1)])
    neighbours = torch.cat([functional.pad(graph.neighbours, (0, num_further)), normalized[num_labels:] > 0])
    return GraphState(torch.cat([graph.nodes, vectors]), normalized, neighbours)
