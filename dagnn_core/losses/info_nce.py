"""InfoNCE, the contrastive loss of CLIP (Radford et al., 2021): only the own partner is right."""

import torch
from torch import Tensor
from torch.nn import functional

from dagnn_core.losses.pair_memory import FurtherPairs


def info_nce_loss(
    image_embedding: Tensor, text_embedding: Tensor, log_scale: Tensor, further: FurtherPairs | None = None
) -> Tensor:
    """Mean of both directions' cross-entropies of cos/τ over the batch, with 1/τ = exp(log_scale), at most 100.

    Args:
        image_embedding: of pairs.
        text_embedding: of their partners.
        log_scale: learned.
        further: pairs of earlier steps, wrong partners beside those of the batch.

    Shape:
        image_embedding, text_embedding [N, d], log_scale [] -> scalar.
    """
    image, text = functional.normalize(image_embedding, dim=1), functional.normalize(text_embedding, dim=1)
    scale = log_scale.exp().clamp_max(100)
    logits = scale * image @ text.T
    to_text, to_image = logits, logits.T
    if further is not None:
        to_text, to_image = (
            torch.cat([near, (scale * queries @ others.T).masked_fill(further.is_same, -torch.inf)], dim=1)
            for near, queries, others in ((to_text, image, further.text), (to_image, text, further.image))
        )
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(to_text, own) + functional.cross_entropy(to_image, own)) / 2
