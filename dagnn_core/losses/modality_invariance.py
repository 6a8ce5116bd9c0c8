"""Pairwise multi-label similarity loss within and across modalities."""

from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional


def modality_invariance_loss(image_embedding: Tensor, text_embedding: Tensor, labels: Tensor) -> Tensor:
    """Negative log likelihood of the pairwise similarities S = Y Yᵀ, over (I,I), (I,T), (T,T), mean over all pairs.

    With θ_ij = ½ cos(x_i, y_j): log(1 + e^θ) - S θ (AAAI 2021; the second term of DSCMR, whose S is 0 or 1). S counts
    shared labels, as published: above 1 the reading as a likelihood is lost. Own pairs and both orders of a pair count.

    Shape:
        image_embedding, text_embedding: [B, d], labels: [B, C] -> scalar.
    """
    shared = labels @ labels.T
    pairs = ((image_embedding, image_embedding), (image_embedding, text_embedding), (text_embedding, text_embedding))
    loss = labels.new_zeros(())
    for x, y in pairs:
        theta = _half_cosine(x, y)
        loss = loss + (functional.softplus(theta) - shared * theta).mean()
    return loss


def _half_cosine(x: Tensor, y: Tensor) -> Tensor:
    norms: Tensor = (vector_norm(x, dim=1, keepdim=True) * vector_norm(y, dim=1)).clamp_min(1e-6)
    return 0.5 * (x @ y.T) / norms
