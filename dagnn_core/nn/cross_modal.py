"""What every network can do: embed images and texts, to be ranked by cosine.

Shapes: N items, C labels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class PairOutput(NamedTuple):
    """Embeddings of a batch of pairs, [N, d] each."""

    image_embedding: Tensor
    text_embedding: Tensor


class CrossModalNetwork(nn.Module):
    """A network with an encoder for each modality; the embeddings are their outputs unless it says otherwise."""

    image_encoder: nn.Module
    text_encoder: nn.Module

    def embed_image(self, image: Tensor) -> Tensor:
        """Image features [N, d_I] to embeddings [N, d]."""
        embedding: Tensor = self.image_encoder(image)
        return embedding

    def embed_text(self, text: Tensor) -> Tensor:
        """Text features [N, d_T] to embeddings [N, d]."""
        embedding: Tensor = self.text_encoder(text)
        return embedding

    def label_probabilities(self, embedding: Tensor) -> Tensor | None:
        """Embeddings [N, d] to calibrated label probabilities [N, C]; None where the network has none."""
        return None


def lift_image_probabilities(probabilities: Tensor) -> Tensor:
    """Label probabilities p of images to embeddings whose cosine with those of texts is p·q / C.

    p·q is the expected number of shared labels, where the labels of an image and a text are independent. As a cosine,
    all vectors need one length, √C: an image has the missing part in an entry of its own, where texts are zero, and a
    text likewise (maximum inner product search as cosine search; Bachrach et al., RecSys 2014).

    Shape:
        [N, C] -> [N, C + 2].
    """
    rest = _missing_length(probabilities)
    return torch.cat([probabilities, rest, torch.zeros_like(rest)], dim=1)


def lift_text_probabilities(probabilities: Tensor) -> Tensor:
    """Label probabilities q of texts to embeddings; see `lift_image_probabilities`.

    Shape:
        [N, C] -> [N, C + 2].
    """
    rest = _missing_length(probabilities)
    return torch.cat([probabilities, torch.zeros_like(rest), rest], dim=1)


def _missing_length(probabilities: Tensor) -> Tensor:
    num_labels = probabilities.shape[1]
    return (num_labels - probabilities.square().sum(dim=1, keepdim=True)).clamp_min(0).sqrt()
