"""Pairwise multi-label similarity loss within and across modalities."""

from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional

from dagnn_core.losses.similarity import LabelSimilarity, label_similarity


def modality_invariance_loss(
    image_embedding: Tensor,
    text_embedding: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    *,
    similarity: LabelSimilarity,
) -> Tensor:
    """Negative log likelihood of the label similarities S, over (I,I), (I,T), (T,T), each the mean over all pairs.

    With θ_ij = ½ cos(x_i, y_j): log(1 + e^θ) - S θ (AAAI 2021; the second term of DSCMR, whose S is 0 or 1). Published
    is S = Y Yᵀ (`count`): above 1 the reading as a likelihood is lost. Own pairs and both orders of a pair count.

    Shape:
        image_embedding [B_I, d], text_embedding [B_T, d], image_labels [B_I, C], text_labels [B_T, C] -> scalar.
    """
    image, text = (image_embedding, image_labels), (text_embedding, text_labels)
    loss = image_labels.new_zeros(())
    for (x, x_labels), (y, y_labels) in ((image, image), (image, text), (text, text)):
        theta = _half_cosine(x, y)
        loss = loss + (functional.softplus(theta) - label_similarity(x_labels, y_labels, similarity) * theta).mean()
    return loss


def _half_cosine(x: Tensor, y: Tensor) -> Tensor:
    norms: Tensor = (vector_norm(x, dim=1, keepdim=True) * vector_norm(y, dim=1)).clamp_min(1e-6)
    return 0.5 * (x @ y.T) / norms
