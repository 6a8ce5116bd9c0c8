"""Label classifiers: the multi-hop graph neural network over the label graph, with layer aggregation (AAAI 2021).

Shapes: C labels, e label-embedding dimension, d common dimension, L hops, K attention heads.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dagnn_core.nn.label_graphs import FixedGraph, GraphState, LearnedGraph

Aggregation = Literal["concat", "max", "attention", "last"]


class GraphConvolution(nn.Module):
    """One hop: H' = LeakyReLU_0.2(Â (H W)), without bias, W from U(±1/√out_dim).

    Shape:
        hidden [C, in_dim] -> [C, out_dim].
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(out_dim)
        self.weight = nn.Parameter(torch.empty(in_dim, out_dim).uniform_(-bound, bound))

    def forward(self, hidden: Tensor, graph: GraphState) -> Tensor:
        """Apply one hop."""
        return functional.leaky_relu(graph.normalized @ (hidden @ self.weight), 0.2)


class GraphAttention(nn.Module):
    """One hop of graph attention (Veličković et al., ICLR 2018), heads averaged; published: one head.

    h = H W; e_ij = LeakyReLU_0.2(a₁·h_i + a₂·h_j); α_i = softmax of e_i over the neighbours of i; H' = ELU(α h).

    Shape:
        hidden [C, in_dim] -> [C, out_dim].
    """

    def __init__(self, in_dim: int, out_dim: int, num_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, in_dim, out_dim))
        self.attention = nn.Parameter(torch.empty(num_heads, 2, out_dim))
        for head in range(num_heads):
            nn.init.xavier_uniform_(self.weight[head], gain=1.414)
            nn.init.xavier_uniform_(self.attention[head].view(-1, 1), gain=1.414)

    def forward(self, hidden: Tensor, graph: GraphState) -> Tensor:
        """Apply one hop."""
        hidden_KCd = hidden @ self.weight
        own_KC, other_KC = torch.einsum("kcd,ksd->skc", hidden_KCd, self.attention)
        score_KCC = functional.leaky_relu(own_KC[:, :, None] + other_KC[:, None, :], 0.2)
        # finite, as published: a label without neighbours attends to all alike instead of becoming NaN
        attention_KCC = score_KCC.masked_fill(~graph.neighbours, -9e15).softmax(dim=2)
        return functional.elu((attention_KCC @ hidden_KCd).mean(dim=0))


class LayerAggregation(nn.Module):
    """Classifiers from the outputs of all hops: Θ = W_o [H¹ ‖ ... ‖ Hᴸ] + b_o as published (`concat`).

    `max` takes the largest entry over the hops, `attention` a mean over the hops weighted for each label (softmax of
    q·Hˡ), `last` no aggregation: the last hop alone; each is followed by W_o of its width.

    Shape:
        L times [C, d] -> [C, d].
    """

    def __init__(self, kind: Aggregation, hops: int, dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.query = nn.Parameter(torch.zeros(dim)) if kind == "attention" else None
        self.projection = nn.Linear(hops * dim if kind == "concat" else dim, dim)

    def forward(self, hops: list[Tensor]) -> Tensor:
        """Aggregate."""
        if self.kind == "concat":
            aggregated = torch.cat(hops, dim=1)
        elif self.kind == "last":
            aggregated = hops[-1]
        elif self.query is None:
            aggregated = torch.stack(hops).amax(dim=0)
        else:
            hops_LCd = torch.stack(hops)
            aggregated = ((hops_LCd @ self.query).softmax(dim=0)[:, :, None] * hops_LCd).sum(dim=0)
        classifiers: Tensor = self.projection(aggregated)
        return classifiers


class LabelGNN(nn.Module):
    """L hops over the label graph, aggregated into inter-dependent classifiers Θ for both modalities.

    Row c of Θ classifies label c, so that labels that occur together share what they learn.

    Shape:
        () -> [C, d].
    """

    def __init__(
        self,
        graph: FixedGraph | LearnedGraph,
        *,
        dim: int,
        layer: Literal["gcn", "gat"],
        hops: int,
        num_heads: int,
        aggregation: Aggregation,
    ) -> None:
        super().__init__()
        self.graph = graph
        widths = [graph.label_embeddings.shape[1], *[dim] * hops]
        self.layers = nn.ModuleList(
            GraphConvolution(width, dim) if layer == "gcn" else GraphAttention(width, dim, num_heads)
            for width in widths[:-1]
        )
        self.aggregation = LayerAggregation(aggregation, hops, dim)

    def forward(self) -> Tensor:
        """Compute the classifiers."""
        return self._classifiers(self.graph())

    def generate(self, vectors: Tensor) -> Tensor:
        """Classifiers of labels that were not trained, from their vectors and their place in the graph.

        The trained labels do not listen to them, so their classifiers stay the same.

        Shape:
            vectors [U, e] -> [U, d].
        """
        return self._classifiers(self.graph.extended(vectors))[-len(vectors) :]

    def _classifiers(self, graph: GraphState) -> Tensor:
        hidden = graph.nodes
        hops = []
        for layer in self.layers:
            hidden = layer(hidden, graph)
            hops.append(hidden)
        classifiers: Tensor = self.aggregation(hops)
        return classifiers


class IndependentClassifiers(nn.Module):
    """Classifiers without a label GNN, for comparison: Θ is a free parameter, from U(±1/√d).

    Shape:
        () -> [C, d].
    """

    def __init__(self, num_labels: int, dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(dim)
        self.weight = nn.Parameter(torch.empty(num_labels, dim).uniform_(-bound, bound))

    def forward(self) -> Tensor:
        """The classifiers as they are."""
        return self.weight
