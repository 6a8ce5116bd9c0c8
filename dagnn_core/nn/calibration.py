"""Learned logits of cosines."""

import math

import torch
from torch import Tensor, nn


class Calibration(nn.Module):
    """Cosines to logits: s cos + b, at the start 10 cos - 5, so that a cosine of one half is undecided.

    Args:
        num_biases: 1, or one for each column.

    Shape:
        [., num_biases] -> the same; with one bias, any shape.
    """

    def __init__(self, num_biases: int = 1) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.full((num_biases,), -5.0))

    def forward(self, cosine: Tensor) -> Tensor:
        """Apply."""
        return self.log_scale.exp() * cosine + self.bias

    def with_mean_bias(self, cosine: Tensor) -> Tensor:
        """Apply to columns that have no bias of their own: they take the mean."""
        return self.log_scale.exp() * cosine + self.bias.mean()
