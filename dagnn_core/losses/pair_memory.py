"""The pairs of the last steps: further wrong partners for InfoNCE (cross-batch memory; Wang et al., CVPR 2020).

Shapes: N pairs of a step, M remembered pairs, d embedding dimension.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class FurtherPairs(NamedTuple):
    """What a step sees of the memory; constants."""

    image: Tensor
    """[M, d], of length 1."""
    text: Tensor
    """[M, d], of length 1."""
    is_same: Tensor
    """bool [N, M]: a pair of the step and a remembered one are the same item, which is no wrong partner."""


@dataclass(slots=True)
class PairMemory:
    """The last pairs as they were embedded in their step; the weights have changed little since."""

    capacity: int
    """Pairs that it holds, at most."""
    image: Tensor
    text: Tensor
    rows: Tensor
    """Items of the pairs, as row numbers of the training split, [M]."""

    @classmethod
    def empty(cls, capacity: int, dim: int, device: torch.device) -> "PairMemory":
        """A memory of no pairs yet."""
        none = torch.empty(0, dim, device=device)
        return cls(capacity, none, none.clone(), torch.empty(0, dtype=torch.int64, device=device))

    def beside(self, rows: Tensor) -> FurtherPairs:
        """The remembered pairs, for a step whose pairs are these items, [N]."""
        return FurtherPairs(self.image, self.text, rows[:, None] == self.rows)

    @torch.no_grad()
    def add(self, image_embedding: Tensor, text_embedding: Tensor, rows: Tensor) -> None:
        """Remember the pairs of a step, and forget the oldest ones beyond the capacity.

        Shape:
            image_embedding, text_embedding [N, d], rows [N].
        """
        image, text = (functional.normalize(of.to(self.image), dim=1) for of in (image_embedding, text_embedding))
        both = ((self.image, image), (self.text, text), (self.rows, rows))
        self.image, self.text, self.rows = (torch.cat(of)[-self.capacity :] for of in both)
