"""DAGNN (Qian et al., AAAI 2021): dual generative adversarial networks and a label GNN around a common space.

Shapes: B_I images and B_T texts of a batch, C labels, d_I and d_T feature dimensions, d common dimension.

Nothing here needs an image and a text to be a pair: a batch may have other items, and numbers, of each modality.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from dagnn_core.config.model import ModelConfig
from dagnn_core.losses.adversarial import ModalityLogits
from dagnn_core.nn.calibration import Calibration
from dagnn_core.nn.cross_modal import CrossModalNetwork
from dagnn_core.nn.feed_forward import FeedForward, Norm
from dagnn_core.nn.gradient_reversal import reverse_gradient
from dagnn_core.nn.hybrid import HybridRanking
from dagnn_core.nn.label_gnn import IndependentClassifiers, LabelGNN
from dagnn_core.nn.label_graphs import FixedGraph, GraphTensors, LearnedGraph
from dagnn_core.nn.lifted import Modality, Parts, lift_hybrid, lift_probabilities, lowered_probabilities


class Translation(NamedTuple):
    """What the generators make, and what the discriminators say of it."""

    image: Tensor
    """G_TI(f_T), image features made from texts, [B_T, d_I]."""
    text: Tensor
    """G_IT(f_I), text features made from images, [B_I, d_T]."""
    modality: ModalityLogits
    """Discriminator logits, behind gradient reversal."""


class DAGNNOutput(NamedTuple):
    """What one forward pass computes."""

    image_embedding: Tensor
    """f_I [B_I, d], non-negative."""
    text_embedding: Tensor
    """f_T [B_T, d], non-negative."""
    image_scores: Tensor
    """y_I [B_I, C], cosines."""
    text_scores: Tensor
    """y_T [B_T, C], cosines."""
    classifiers: Tensor
    """Θ [C, d]."""
    translation: Translation | None
    """None without discriminators."""


class Adversary(nn.Module):
    """The two cross-modal generators, and a discriminator in each feature space behind gradient reversal.

    Args:
        config: widths, nonlinearity, batch norm.
        image_dim: d_I.
        text_dim: d_T.
    """

    def __init__(self, config: ModelConfig, *, image_dim: int, text_dim: int) -> None:
        super().__init__()
        d, norm = config.embedding_dim, config.adversary_norm
        leaky_relu, relu = nn.LeakyReLU(0.2), nn.ReLU()
        between = relu if config.discriminator == "relu" else None
        self.image_to_text = FeedForward(
            [d, config.image_to_text_hidden, text_dim], hidden=leaky_relu, output=leaky_relu, norm=norm
        )
        self.text_to_image = FeedForward(
            [d, config.text_to_image_hidden, image_dim], hidden=relu, output=relu, norm=norm
        )
        self.image_discriminator = _discriminator(image_dim, between, norm)
        self.text_discriminator = _discriminator(text_dim, between, norm)

    def forward(
        self, image: Tensor, text: Tensor, image_embedding: Tensor, text_embedding: Tensor, reversal: float
    ) -> Translation:
        """Translate the embeddings, and judge real and translated features.

        Shape:
            image [B_I, d_I], text [B_T, d_T], image_embedding [B_I, d], text_embedding [B_T, d].
        """
        translated_text = self.image_to_text(image_embedding)
        translated_image = self.text_to_image(text_embedding)
        # in this order: with batch norm, running statistics depend on it
        modality = ModalityLogits(
            real_image=self.image_discriminator(reverse_gradient(image, reversal)),
            translated_image=self.image_discriminator(reverse_gradient(translated_image, reversal)),
            translated_text=self.text_discriminator(reverse_gradient(translated_text, reversal)),
            real_text=self.text_discriminator(reverse_gradient(text, reversal)),
        )
        return Translation(translated_image, translated_text, modality)


class DAGNN(CrossModalNetwork):
    """Encoders into the common space, generators and discriminators, and classifiers from the label GNN.

    Args:
        config: architecture.
        image_dim: d_I.
        text_dim: d_T.
        graph: label graph, of the training labels.
    """

    def __init__(self, config: ModelConfig, *, image_dim: int, text_dim: int, graph: GraphTensors) -> None:
        super().__init__()
        self.image_encoder = _encoder(config, image_dim, config.image_dropout)
        self.text_encoder = _encoder(config, text_dim, config.text_dropout)
        self.adversary = None
        if config.discriminator != "none":
            self.adversary = Adversary(config, image_dim=image_dim, text_dim=text_dim)
        self.label_classifiers = _label_classifiers(config, graph)
        is_cross_entropy = config.classification == "cross_entropy"
        self.label_calibration = Calibration(len(graph.embeddings)) if is_cross_entropy else None
        self.relevance_calibration = Calibration() if config.relevance_weight > 0 else None
        self.pair_log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07))) if config.pair_weight > 0 else None
        self.ranks_by_labels = config.ranking == "labels"
        is_hybrid = config.ranking == "hybrid"
        self.hybrid = HybridRanking(image_dim=image_dim, text_dim=text_dim) if is_hybrid else None

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        *,
        num_real_image: int | None = None,
        num_real_text: int | None = None,
        reversal: float = 1.0,
    ) -> DAGNNOutput:
        """Run a batch of images and a batch of texts.

        Args:
            image: image features.
            text: text features.
            num_real_image: so many images, the first ones, are real and the others reconstructed from texts, which the
                adversarial part must not see; None: all.
            num_real_text: the same of the texts.
            reversal: strength λ of the gradient reversal.

        Shape:
            image [B_I, d_I], text [B_T, d_T].
        """
        image_embedding = self.image_encoder(image)
        text_embedding = self.text_encoder(text)
        classifiers = self.label_classifiers()
        translation = None
        if self.adversary is not None:
            translation = self.adversary(
                image[:num_real_image],
                text[:num_real_text],
                image_embedding[:num_real_image],
                text_embedding[:num_real_text],
                reversal,
            )
        return DAGNNOutput(
            image_embedding=image_embedding,
            text_embedding=text_embedding,
            image_scores=cosine_scores(image_embedding, classifiers),
            text_scores=cosine_scores(text_embedding, classifiers),
            classifiers=classifiers,
            translation=translation,
        )

    @property
    def is_lifted(self) -> bool:
        """Whether embeddings are lifted vectors, see `dagnn_core.nn.lifted`."""
        return self.ranks_by_labels or self.hybrid is not None

    def embed_image(self, image: Tensor) -> Tensor:
        """Image features [N, d_I] to embeddings: f_I [N, d], or lifted vectors, as `model.ranking` says."""
        return self._embed(image, "image")

    def embed_text(self, text: Tensor) -> Tensor:
        """Text features [N, d_T] to embeddings: f_T [N, d], or lifted vectors, as `model.ranking` says."""
        return self._embed(text, "text")

    def hybrid_parts(self, features: Tensor, modality: Modality) -> Parts:
        """What the hybrid ranking compares of image features [N, d_I] or text features [N, d_T]."""
        assert self.hybrid is not None
        embedding = self._encode(features, modality)
        return Parts(self._probabilities(embedding), embedding, self.hybrid.canonical(features, modality))

    def label_probabilities(self, embedding: Tensor) -> Tensor | None:
        """Embeddings, as `embed_image` and `embed_text` give them, to label probabilities [N, C].

        None where classification is not calibrated.
        """
        if self.label_calibration is None:
            return None
        num_labels = len(self.label_calibration.bias)
        if self.hybrid is not None:
            return lowered_probabilities(embedding, num_labels, self.hybrid.label_weight)
        return lowered_probabilities(embedding, num_labels) if self.ranks_by_labels else self._probabilities(embedding)

    @property
    def generates_classifiers(self) -> bool:
        """Whether labels that were not trained can get classifiers and probabilities."""
        return isinstance(self.label_classifiers, LabelGNN) and self.label_calibration is not None

    def generated_probabilities(self, features: Tensor, modality: Modality, vectors: Tensor) -> Tensor:
        """Probabilities of labels that were not trained, by generated classifiers and the trained labels' mean bias.

        Args:
            features: of one modality.
            modality: which.
            vectors: of the labels, as the label graph has those of its own.

        Shape:
            features [N, d_I] or [N, d_T], vectors [U, e] -> [N, U].
        """
        assert isinstance(self.label_classifiers, LabelGNN)
        assert self.label_calibration is not None
        cosines = cosine_scores(self._encode(features, modality), self.label_classifiers.generate(vectors))
        return self.label_calibration.with_mean_bias(cosines).sigmoid()

    def embed_with_generated(
        self, features: Tensor, modality: Modality, vectors: Tensor, *, alone: bool = False
    ) -> Tensor:
        """Embeddings that rank by the probabilities of further labels, too: p·q sums over these as over the others.

        Where `model.ranking` is `embedding`, the score is p·q of the further labels plus cos(f_I, f_T).

        Args:
            features: of one modality.
            modality: which.
            vectors: of the further labels, as `generated_probabilities` takes them.
            alone: rank by p·q of the further labels alone.

        Shape:
            features [N, d_I] or [N, d_T], vectors [U, e] -> lifted vectors [N, K].
        """
        generated = self.generated_probabilities(features, modality, vectors)
        if alone:
            return lift_probabilities(generated, modality)
        embedding = self._encode(features, modality)
        if self.ranks_by_labels:
            return lift_probabilities(torch.cat([self._probabilities(embedding), generated], dim=1), modality)
        if self.hybrid is not None:
            parts = self.hybrid_parts(features, modality)
            probabilities = torch.cat([parts.probabilities, generated], dim=1)
            lifted: Tensor = self.hybrid(parts._replace(probabilities=probabilities), modality)
            return lifted
        one = embedding.new_tensor(1.0)
        parts = Parts(generated, embedding, embedding.new_zeros(len(embedding), 1))
        return lift_hybrid(parts, modality, label_weight=one, canonical_share=1 - one)

    def _embed(self, features: Tensor, modality: Modality) -> Tensor:
        if self.hybrid is not None:
            lifted: Tensor = self.hybrid(self.hybrid_parts(features, modality), modality)
            return lifted
        embedding = self._encode(features, modality)
        return lift_probabilities(self._probabilities(embedding), modality) if self.ranks_by_labels else embedding

    def _encode(self, features: Tensor, modality: Modality) -> Tensor:
        embedding: Tensor = (self.image_encoder if modality == "image" else self.text_encoder)(features)
        return embedding

    def _probabilities(self, embedding: Tensor) -> Tensor:
        assert self.label_calibration is not None
        logits: Tensor = self.label_calibration(cosine_scores(embedding, self.label_classifiers()))
        return logits.sigmoid()


def build(config: ModelConfig, *, image_dim: int, text_dim: int, graph: GraphTensors) -> DAGNN:
    """Make the network; see `dagnn_core.model.kinds.build_network`."""
    return DAGNN(config, image_dim=image_dim, text_dim=text_dim, graph=graph)


def cosine_scores(embedding: Tensor, classifiers: Tensor) -> Tensor:
    """Cosine of every embedding with every label's classifier: ⟨f, Θ_c⟩ / (‖f‖ ‖Θ_c‖ + 1e-6).

    Shape:
        [B, d], [C, d] -> [B, C], in [-1, 1].
    """
    norms: Tensor = vector_norm(embedding, dim=1, keepdim=True) * vector_norm(classifiers, dim=1)
    return embedding @ classifiers.T / (norms + 1e-6)


def _encoder(config: ModelConfig, dim: int, dropout: float) -> FeedForward:
    return FeedForward([dim, config.embedding_dim], output=nn.ReLU(), norm=config.encoder_norm, dropout=dropout)


def _label_classifiers(config: ModelConfig, graph: GraphTensors) -> LabelGNN | IndependentClassifiers:
    if config.graph == "none":
        return IndependentClassifiers(len(graph.embeddings), config.embedding_dim)
    if config.graph == "learned":
        nodes: FixedGraph | LearnedGraph = LearnedGraph(graph, num_metrics=config.graph_metrics, mix=config.graph_mix)
    else:
        nodes = FixedGraph(graph)
    return LabelGNN(
        nodes,
        dim=config.embedding_dim,
        layer=config.graph_layer,
        hops=config.hops,
        num_heads=config.attention_heads,
        aggregation=config.aggregation,
    )


def _discriminator(dim: int, between: nn.Module | None, norm: Norm) -> FeedForward:
    # a small feature dimension must not make a layer of width zero
    dims = [dim, max(1, dim // 4), max(1, dim // 16), 2]
    return FeedForward(dims, hidden=between, output=nn.Identity(), norm=norm)
