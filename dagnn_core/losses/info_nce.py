"""InfoNCE, the contrastive loss of CLIP (Radford et al., 2021): only the own partner is right."""

import torch
from torch import Tensor
from torch.nn import functional


def info_nce_loss(image_embedding: Tensor, text_embedding: Tensor, log_scale: Tensor) -> Tensor:
    """Mean of both directions' cross-entropies of cos/τ over the batch, with 1/τ = exp(log_scale), at most 100.

    Shape:
        image_embedding, text_embedding [N, d] of pairs, log_scale [] -> scalar.
    """
    image, text = functional.normalize(image_embedding, dim=1), functional.normalize(text_embedding, dim=1)
    logits = log_scale.exp().clamp_max(100) * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
