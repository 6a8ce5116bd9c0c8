"""The multi-hop graph neural network over the label graph, with layer aggregation (AAAI 2021).

Shapes: C labels, e label-embedding dimension, d common dimension, L hops.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class GraphConvolution(nn.Module):
    """One hop: H' = LeakyReLU_0.2(Â (H W)), without bias, W from U(±1/√out_dim).

    Shape:
        hidden [C, in_dim], normalized adjacency Â [C, C] -> [C, out_dim].
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(out_dim)
        self.weight = nn.Parameter(torch.empty(in_dim, out_dim).uniform_(-bound, bound))

    def forward(self, hidden: Tensor, normalized: Tensor) -> Tensor:
        """Apply one hop."""
        return functional.leaky_relu(normalized @ (hidden @ self.weight), 0.2)


class LabelGNN(nn.Module):
    """L hops from the label embeddings; the outputs of all hops, concatenated and projected, are the classifiers.

    Θ = [H¹ ‖ ... ‖ Hᴸ] W_o + b_o: row c of Θ classifies label c for both modalities, so that labels that occur
    together share what they learn.

    Shape:
        label embeddings [C, e], normalized adjacency Â [C, C] -> classifiers Θ [C, d].
    """

    def __init__(self, label_dim: int, embedding_dim: int, hops: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            GraphConvolution(label_dim if hop == 0 else embedding_dim, embedding_dim) for hop in range(hops)
        )
        self.projection = nn.Linear(hops * embedding_dim, embedding_dim)

    def forward(self, label_embeddings: Tensor, normalized: Tensor) -> Tensor:
        """Compute the classifiers."""
        hidden = label_embeddings
        outputs = []
        for layer in self.layers:
            hidden = layer(hidden, normalized)
            outputs.append(hidden)
        classifiers: Tensor = self.projection(torch.cat(outputs, dim=1))
        return classifiers
