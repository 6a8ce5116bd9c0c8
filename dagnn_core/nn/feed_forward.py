"""The feed-forward network that encoders, generators and discriminators are made of."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from dagnn_core.parallel import by_rows

Activation = Callable[[Tensor], Tensor]
Norm = Literal["none", "batch", "unit"]


class UnitLength(nn.Module):
    """Scale every vector to length √dim, so that an entry is about 1 in size; zeros stay zeros.

    Shape:
        [B, dim] -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale."""
        return functional.normalize(x, dim=1) * math.sqrt(x.shape[1])


class FeedForward(nn.Module):
    """Normalisation and dropout of the input, then linear layers with an activation after each.

    Args:
        dims: widths, from the input to the output.
        hidden: activation after every layer but the last; None: none.
        output: activation after the last layer.
        norm: of the input: none (AAAI 2021 code), batch normalisation (TPAMI 2022 code), or unit length.
        dropout: probability that an entry of the input is dropped.

    Shape:
        [B, dims[0]] -> [B, dims[-1]].
    """

    def __init__(
        self,
        dims: Sequence[int],
        *,
        hidden: Activation | None = None,
        output: Activation,
        norm: Norm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        norms: dict[Norm, Callable[[], nn.Module]] = {
            "none": nn.Identity,
            "batch": lambda: nn.BatchNorm1d(dims[0]),
            "unit": UnitLength,
        }
        self.norm = norms[norm]()
        self.dropout = nn.Dropout(dropout)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(dims))
        self.hidden = hidden
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        x = self.dropout(self.norm(x))
        return by_rows(self._layers, x) if self.training else self._layers(x)

    def _layers(self, x: Tensor) -> Tensor:
        for linear in self.linears[:-1]:
            x = linear(x) if self.hidden is None else self.hidden(linear(x))
        output: Tensor = self.output(self.linears[-1](x))
        return output
