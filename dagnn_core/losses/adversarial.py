"""Adversarial loss of the two modality discriminators."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

FROM_TEXT, FROM_IMAGE = 0, 1


class ModalityLogits(NamedTuple):
    """Logits [., 2] of the two discriminators; class 1 is "came from an image", class 0 "came from a text"."""

    real_image: Tensor
    """D_I on image features, [B_I, 2]."""
    translated_image: Tensor
    """D_I on image features made from texts, [B_T, 2]."""
    translated_text: Tensor
    """D_T on text features made from images, [B_I, 2]."""
    real_text: Tensor
    """D_T on text features, [B_T, 2]."""


class DiscriminatorAccuracy(NamedTuple):
    """Share of right answers of each discriminator; 0.5: it cannot tell real from translated features."""

    image: Tensor
    text: Tensor


def adversarial_loss(modality: ModalityLogits) -> Tensor:
    """Sum of four cross-entropies, each a batch mean: which modality did these features come from?

    CE(D_I(x_I), 1) + CE(D_I(G_TI(f_T)), 0) + CE(D_T(G_IT(f_I)), 1) + CE(D_T(x_T), 0). The discriminators descend
    it; behind gradient reversal, generators and encoders ascend it in the same backward pass.

    Shape:
        logits [B, 2] -> scalar.
    """
    return (
        _cross_entropy(modality.real_image, FROM_IMAGE)
        + _cross_entropy(modality.translated_image, FROM_TEXT)
        + _cross_entropy(modality.translated_text, FROM_IMAGE)
        + _cross_entropy(modality.real_text, FROM_TEXT)
    )


@torch.no_grad()
def discriminator_accuracy(modality: ModalityLogits) -> DiscriminatorAccuracy:
    """Accuracy of both discriminators on a batch, for the log.

    Shape:
        logits [B, 2] -> two scalars.
    """
    return DiscriminatorAccuracy(
        image=(_share(modality.real_image, FROM_IMAGE) + _share(modality.translated_image, FROM_TEXT)) / 2,
        text=(_share(modality.translated_text, FROM_IMAGE) + _share(modality.real_text, FROM_TEXT)) / 2,
    )


def _cross_entropy(logits: Tensor, modality: int) -> Tensor:
    return functional.cross_entropy(logits, torch.full((len(logits),), modality, device=logits.device))


def _share(logits: Tensor, modality: int) -> Tensor:
    return (logits.argmax(dim=1) == modality).double().mean()
