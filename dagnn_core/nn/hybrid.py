"""What the hybrid ranking has beside the network that is trained: two weights, and canonical variates of the features.

The weights and maps are buffers: no gradient reaches them, `dagnn_core.training.hybrid` sets them after the training.
"""

import torch
from torch import Tensor, nn

from dagnn_core.nn.lifted import Modality, Parts, lift_hybrid, num_canonical


class HybridRanking(nn.Module):
    """Lifts embeddings, label probabilities and canonical variates; at the start w = 1, v = 0.

    Args:
        image_dim: d_I.
        text_dim: d_T.
    """

    label_weight: Tensor
    canonical_share: Tensor

    def __init__(self, *, image_dim: int, text_dim: int) -> None:
        super().__init__()
        k = num_canonical(image_dim, text_dim)
        self.register_buffer("label_weight", torch.tensor(1.0))
        self.register_buffer("canonical_share", torch.tensor(0.0))
        for modality, dim in (("image", image_dim), ("text", text_dim)):
            self.register_buffer(f"{modality}_projection", torch.zeros(dim, k))
            self.register_buffer(f"{modality}_offset", torch.zeros(k))

    def canonical(self, features: Tensor, modality: Modality) -> Tensor:
        """Canonical variates of image features [N, d_I] or text features [N, d_T], [N, k]."""
        projection, offset = (self.get_buffer(f"{modality}_{name}") for name in ("projection", "offset"))
        return features @ projection + offset

    def forward(self, parts: Parts, modality: Modality) -> Tensor:
        """Lifted vectors [N, C + d + k + 2]."""
        return lift_hybrid(parts, modality, label_weight=self.label_weight, canonical_share=self.canonical_share)
