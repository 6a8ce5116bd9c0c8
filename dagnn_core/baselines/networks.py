"""Networks that DAGNN is compared with.

Shapes: N pairs, d_I and d_T feature dimensions, d common dimension, C labels.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dagnn_core.nn.cross_modal import CrossModalNetwork
from dagnn_core.nn.feed_forward import FeedForward, Norm
from dagnn_core.parallel import by_rows


class PairOutput(NamedTuple):
    """Embeddings of a batch of pairs, [N, d] each."""

    image_embedding: Tensor
    text_embedding: Tensor


class TwoTower(CrossModalNetwork):
    """A multilayer perceptron for each modality, and the inverse temperature that InfoNCE learns (CLIP, 2021).

    Shape:
        image [N, d_I], text [N, d_T] -> embeddings [N, d].
    """

    def __init__(self, *, image_dim: int, text_dim: int, dim: int, norm: Norm) -> None:
        super().__init__()
        relu, identity = nn.ReLU(), nn.Identity()
        self.image_encoder = FeedForward([image_dim, dim, dim], hidden=relu, output=identity, norm=norm)
        self.text_encoder = FeedForward([text_dim, dim, dim], hidden=relu, output=identity, norm=norm)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image: Tensor, text: Tensor) -> PairOutput:
        """Embed a batch of pairs."""
        return PairOutput(self.image_encoder(image), self.text_encoder(text))


class DSCMR(CrossModalNetwork):
    """Deep supervised cross-modal retrieval (Zhen et al., CVPR 2019): towers with a common last layer, one classifier.

    Shape:
        image [N, d_I], text [N, d_T] -> embeddings [N, d].
    """

    def __init__(self, *, image_dim: int, text_dim: int, dim: int, num_labels: int) -> None:
        super().__init__()
        relu = nn.ReLU()
        shared = nn.Linear(dim, dim)
        self.image_encoder = nn.Sequential(nn.Linear(image_dim, dim), relu, shared, relu)
        self.text_encoder = nn.Sequential(nn.Linear(text_dim, dim), relu, shared, relu)
        self.classifier = nn.Linear(dim, num_labels)

    def forward(self, image: Tensor, text: Tensor) -> PairOutput:
        """Embed a batch of pairs, in training."""
        return PairOutput(by_rows(self.image_encoder, image), by_rows(self.text_encoder, text))


class LinearTowers(CrossModalNetwork):
    """Two affine maps, fitted in closed form (CCA, ridge regression)."""

    def __init__(self, *, image_dim: int, text_dim: int, dim: int) -> None:
        super().__init__()
        self.image_encoder = nn.Linear(image_dim, dim)
        self.text_encoder = nn.Linear(text_dim, dim)
