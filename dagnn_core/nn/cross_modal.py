"""What every network can do: embed images and texts, to be ranked by cosine.

Shapes: N items, C labels.
"""

from typing import NamedTuple

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

    @property
    def is_lifted(self) -> bool:
        """Whether embeddings are lifted vectors, see `dagnn_core.nn.lifted`."""
        return False
