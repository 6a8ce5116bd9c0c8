"""Soft multi-label contrastive loss between and within modalities (TPAMI 2022).

Shapes: B_I images and B_T texts, d common dimension, C labels.
"""

import torch
from torch import Tensor
from torch.nn import functional

from dagnn_core.losses.similarity import LabelSimilarity, label_similarity


def soft_contrastive_loss(
    image_embedding: Tensor,
    text_embedding: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    *,
    temperature: float,
    intra_modal_weight: float,
    denominator_scale: float,
    similarity: LabelSimilarity,
) -> Tensor:
    """Cross-entropy of softmax similarities against label similarities: (I,T) + (T,I) + γ ((I,I) + (T,T)), row means.

    With s = cos/τ and r the label similarity, scaled so that a row sums to 1: - Σ_j r_ij (s_ij - log Σ_k exp(c s_ik)).
    Within a modality an item is no positive of itself, but part of its own denominator, as published. A row without
    any positive counts as 0.

    Args:
        image_embedding: f_I.
        text_embedding: f_T.
        image_labels: labels of the images.
        text_labels: labels of the texts.
        temperature: τ.
        intra_modal_weight: γ.
        denominator_scale: c; 1.06 in the authors' code, which does not say why, 1 makes it a log-probability.
        similarity: r; the authors' code has `binary`.

    Shape:
        image_embedding [B_I, d], text_embedding [B_T, d], image_labels [B_I, C], text_labels [B_T, C] -> scalar.
    """
    image, text = functional.normalize(image_embedding, dim=1), functional.normalize(text_embedding, dim=1)

    def cross_entropy(queries: Tensor, gallery: Tensor, positives: Tensor) -> Tensor:
        logits = queries @ gallery.T / temperature
        weights = positives / positives.sum(dim=1, keepdim=True).clamp_min(1e-6)
        log_ratio = logits - torch.logsumexp(denominator_scale * logits, dim=1, keepdim=True)
        return -(weights * log_ratio).sum(dim=1).mean()

    across = label_similarity(image_labels, text_labels, similarity)
    loss = cross_entropy(image, text, across) + cross_entropy(text, image, across.T)
    if intra_modal_weight > 0:
        for embedding, labels in ((image, image_labels), (text, text_labels)):
            within = label_similarity(labels, labels, similarity).fill_diagonal_(0)
            loss = loss + intra_modal_weight * cross_entropy(embedding, embedding, within)
    return loss
