"""The feed-forward network that encoders, generators and discriminators are made of."""

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


class FeedForward(nn.Module):
    """Optional batch normalisation of the input, then linear layers with an activation after each.

    Args:
        dims: widths, from the input to the output.
        hidden: activation after every layer but the last; None: none.
        output: activation after the last layer.
        batch_norm: normalise the input over the batch (TPAMI 2022 code; the AAAI 2021 code has none).

    Shape:
        [B, dims[0]] -> [B, dims[-1]].
    """

    def __init__(
        self, dims: Sequence[int], *, hidden: Activation | None = None, output: Activation, batch_norm: bool
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dims[0]) if batch_norm else nn.Identity()
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(dims))
        self.hidden = hidden
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        x = self.norm(x)
        for linear in self.linears[:-1]:
            x = linear(x) if self.hidden is None else self.hidden(linear(x))
        output: Tensor = self.output(self.linears[-1](x))
        return output
