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

    def forward(self) -> GraphState:
        """The graph as it is."""
        return GraphState(self.label_embeddings, self.normalized, self.neighbours)


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
        weighted = self.label_embeddings * self.metrics[:, None]  # [K, C, e]
        adjacency = self.mix * self.initial + (1 - self.mix) * self._cut(_cosines(weighted).mean(dim=0))
        scale = adjacency.sum(dim=1) ** -0.5
        normalized = scale[:, None] * adjacency.T * scale
        return GraphState(self.label_embeddings, normalized, normalized > 0)

    def _cut(self, similarity: Tensor) -> Tensor:
        return torch.where(similarity >= self.threshold, similarity, 0)


def _cosines(vectors: Tensor) -> Tensor:
    unit = functional.normalize(vectors, dim=-1)
    return unit @ unit.mT
