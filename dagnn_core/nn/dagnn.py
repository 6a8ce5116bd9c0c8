"""DAGNN (Qian et al., AAAI 2021): dual generative adversarial networks and a label GNN around a common space.

Shapes: B batch, C labels, d_I and d_T feature dimensions, d common dimension, e label-embedding dimension.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.linalg import vector_norm

from dagnn_core.config import ModelConfig
from dagnn_core.nn.feed_forward import FeedForward
from dagnn_core.nn.gradient_reversal import reverse_gradient
from dagnn_core.nn.label_gnn import LabelGNN


class ModalityLogits(NamedTuple):
    """Logits [B, 2] of the two discriminators; class 1 is "came from an image", class 0 "came from a text"."""

    real_image: Tensor
    """D_I on image features."""
    translated_image: Tensor
    """D_I on image features made from texts."""
    translated_text: Tensor
    """D_T on text features made from images."""
    real_text: Tensor
    """D_T on text features."""


class DAGNNOutput(NamedTuple):
    """What one forward pass computes."""

    image_embedding: Tensor
    """f_I [B, d], non-negative."""
    text_embedding: Tensor
    """f_T [B, d], non-negative."""
    image_scores: Tensor
    """y_I [B, C], cosines."""
    text_scores: Tensor
    """y_T [B, C], cosines."""
    classifiers: Tensor
    """Θ [C, d]."""
    translated_image: Tensor
    """G_TI(f_T) [B, d_I]."""
    translated_text: Tensor
    """G_IT(f_I) [B, d_T]."""
    modality: ModalityLogits
    """Discriminator logits, behind gradient reversal."""


class DAGNN(nn.Module):
    """Encoders into the common space, cross-modal generators, two discriminators, and classifiers from the label GNN.

    Args:
        config: architecture.
        image_dim: d_I.
        text_dim: d_T.
        label_embeddings: E [C, e], kept constant (P-GNN).
        adjacency: normalised adjacency Â [C, C], kept constant.
    """

    label_embeddings: Tensor
    adjacency: Tensor

    def __init__(
        self, config: ModelConfig, *, image_dim: int, text_dim: int, label_embeddings: Tensor, adjacency: Tensor
    ) -> None:
        super().__init__()
        d = config.embedding_dim
        bn = config.batch_norm
        leaky_relu = nn.LeakyReLU(0.2)
        relu = nn.ReLU()
        between = relu if config.discriminator == "relu" else None
        self.image_encoder = FeedForward([image_dim, d], output=relu, batch_norm=bn)
        self.text_encoder = FeedForward([text_dim, d], output=relu, batch_norm=bn)
        self.image_to_text = FeedForward(
            [d, config.image_to_text_hidden, text_dim], hidden=leaky_relu, output=leaky_relu, batch_norm=bn
        )
        self.text_to_image = FeedForward(
            [d, config.text_to_image_hidden, image_dim], hidden=relu, output=relu, batch_norm=bn
        )
        self.image_discriminator = _discriminator(image_dim, between, bn)
        self.text_discriminator = _discriminator(text_dim, between, bn)
        self.label_gnn = LabelGNN(label_embeddings.shape[1], d, config.hops)
        self.register_buffer("label_embeddings", label_embeddings.clone())
        self.register_buffer("adjacency", adjacency.clone())

    def forward(self, image: Tensor, text: Tensor) -> DAGNNOutput:
        """Run both modalities of a batch of pairs.

        Shape:
            image [B, d_I], text [B, d_T].
        """
        image_embedding = self.image_encoder(image)
        text_embedding = self.text_encoder(text)
        classifiers = self.label_gnn(self.label_embeddings, self.adjacency)
        translated_text = self.image_to_text(image_embedding)
        translated_image = self.text_to_image(text_embedding)
        return DAGNNOutput(
            image_embedding=image_embedding,
            text_embedding=text_embedding,
            image_scores=cosine_scores(image_embedding, classifiers),
            text_scores=cosine_scores(text_embedding, classifiers),
            classifiers=classifiers,
            translated_image=translated_image,
            translated_text=translated_text,
            # in this order: with batch norm, running statistics depend on it
            modality=ModalityLogits(
                real_image=self.image_discriminator(reverse_gradient(image)),
                translated_image=self.image_discriminator(reverse_gradient(translated_image)),
                translated_text=self.text_discriminator(reverse_gradient(translated_text)),
                real_text=self.text_discriminator(reverse_gradient(text)),
            ),
        )


def cosine_scores(embedding: Tensor, classifiers: Tensor) -> Tensor:
    """Cosine of every embedding with every label's classifier: ⟨f, Θ_c⟩ / (‖f‖ ‖Θ_c‖ + 1e-6).

    Shape:
        [B, d], [C, d] -> [B, C], in [-1, 1].
    """
    norms: Tensor = vector_norm(embedding, dim=1, keepdim=True) * vector_norm(classifiers, dim=1)
    return embedding @ classifiers.T / (norms + 1e-6)


def _discriminator(dim: int, between: nn.Module | None, batch_norm: bool) -> FeedForward:
    # a small feature dimension must not make a layer of width zero
    dims = [dim, max(1, dim // 4), max(1, dim // 16), 2]
    return FeedForward(dims, hidden=between, output=nn.Identity(), batch_norm=batch_norm)
