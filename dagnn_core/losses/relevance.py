"""Likelihood of relevance: do two items share a label?"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from dagnn_core.losses.similarity import LabelSimilarity, label_similarity


def relevance_loss(
    image_embedding: Tensor,
    text_embedding: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    *,
    calibration: Callable[[Tensor], Tensor],
    intra_modal_weight: float,
    similarity: LabelSimilarity,
) -> Tensor:
    """Binary cross-entropy of P(relevant) = σ(s cos + b) and the label similarity: (I,T) + γ ((I,I) + (T,T)), means.

    The sound form of the published pairwise likelihood, whose logit ½ cos cannot leave [-½, ½]: with a learned scale
    and bias the similarity can express the probability that two items share a label, and a ranking by it has the best
    expected average precision (probability ranking principle). The sigmoid loss of SigLIP (Zhai et al., ICCV 2023)
    with several labels. Within a modality an item is not compared with itself.

    Args:
        image_embedding: f_I.
        text_embedding: f_T.
        image_labels: labels of the images.
        text_labels: labels of the texts.
        calibration: cosines to logits, s cos + b.
        intra_modal_weight: γ.
        similarity: target; `binary` is relevance as MAP counts it, `jaccard` a graded one.

    Shape:
        image_embedding [B_I, d], text_embedding [B_T, d], image_labels [B_I, C], text_labels [B_T, C] -> scalar.
    """
    image, text = functional.normalize(image_embedding, dim=1), functional.normalize(text_embedding, dim=1)

    def cross_entropy(queries: Tensor, gallery: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(calibration(queries @ gallery.T), targets, reduction="none")

    loss = cross_entropy(image, text, label_similarity(image_labels, text_labels, similarity)).mean()
    if intra_modal_weight > 0:
        for embedding, labels in ((image, image_labels), (text, text_labels)):
            pairs = cross_entropy(embedding, embedding, label_similarity(labels, labels, similarity))
            num_others = len(labels) * (len(labels) - 1)
            loss = loss + intra_modal_weight * (pairs.sum() - pairs.diagonal().sum()) / num_others
    return loss
