"""The objective of every kind of network: a weighted sum of loss terms."""

from typing import NamedTuple

from torch import Tensor
from torch.linalg import vector_norm

from dagnn_core.baselines.networks import DSCMR, PairOutput, TwoTower
from dagnn_core.config.model import ModelConfig
from dagnn_core.losses.adversarial import adversarial_loss, discriminator_accuracy
from dagnn_core.losses.classification import classification_loss, label_cross_entropy
from dagnn_core.losses.info_nce import info_nce_loss
from dagnn_core.losses.modality_invariance import modality_invariance_loss
from dagnn_core.losses.reconstruction import reconstruction_loss
from dagnn_core.losses.relevance import relevance_loss
from dagnn_core.losses.soft_contrastive import soft_contrastive_loss
from dagnn_core.nn.dagnn import DAGNN, DAGNNOutput

DSCMR_SIMILARITY_WEIGHT = 1e-3  # as published, of the pairwise similarity
DSCMR_DISTANCE_WEIGHT = 1e-1  # and of the distance between the two embeddings of an item


class Batch(NamedTuple):
    """Features and labels of B_I images and B_T texts; where every item has both, they are pairs in the same order."""

    image: Tensor
    """[B_I, d_I]."""
    text: Tensor
    """[B_T, d_T]."""
    image_labels: Tensor
    """Y of the images, [B_I, C], in the dtype of the features."""
    text_labels: Tensor
    """Y of the texts, [B_T, C]."""
    num_real_image: int
    """So many images, the first ones, are real; the others are reconstructed from texts."""
    num_real_text: int
    """The same of the texts."""
    image_of_pair: Tensor
    """Positions of the images of the P items that have both, [P]."""
    text_of_pair: Tensor
    """Positions of their texts, [P]."""


class Losses(NamedTuple):
    """What a step minimises and what it logs; scalars."""

    total: Tensor
    terms: dict[str, Tensor]
    """The unweighted terms that take part, by name."""
    accuracies: dict[str, Tensor]
    """Discriminator accuracies, for the log."""


def compute_losses(
    network: DAGNN | TwoTower | DSCMR, batch: Batch, config: ModelConfig, *, reversal: float = 1.0
) -> Losses:
    """Run a batch through the network and compute its objective.

    Args:
        network: what is trained.
        batch: the batch; the baselines take pairs only.
        config: weights and options of the terms.
        reversal: strength λ of the gradient reversal.
    """
    if isinstance(network, TwoTower):
        image, text = network(batch.image, batch.text)
        loss = info_nce_loss(image, text, network.log_scale)
        return Losses(loss, {"info_nce": loss}, {})
    if isinstance(network, DSCMR):
        return dscmr_objective(network, network(batch.image, batch.text), batch.image_labels)
    output = network(
        batch.image,
        batch.text,
        num_real_image=batch.num_real_image,
        num_real_text=batch.num_real_text,
        reversal=reversal,
    )
    return dagnn_objective(network, output, batch, config)


def dagnn_objective(network: DAGNN, output: DAGNNOutput, batch: Batch, config: ModelConfig) -> Losses:
    """L = a L_cls + b L_mi + c L_softcon + r L_rel + β L_adv + ρ L_rec; terms of weight zero are left out.

    AAAI 2021: a = 1, b = α, the others 0; TPAMI 2022: a = α, c = 1, the others 0, beside β in both.
    """
    image_labels, text_labels = batch.image_labels, batch.text_labels
    terms: dict[str, tuple[float, Tensor]] = {}
    if config.classification_weight > 0:
        scores = (output.image_scores, image_labels), (output.text_scores, text_labels)
        if network.label_calibration is None:
            image_loss, text_loss = (classification_loss(cosines, labels) for cosines, labels in scores)
        else:
            logits = ((network.label_calibration(cosines), labels) for cosines, labels in scores)
            image_loss, text_loss = (label_cross_entropy(*pair) for pair in logits)
        terms["classification"] = config.classification_weight, image_loss + text_loss
    embeddings = output.image_embedding, output.text_embedding, image_labels, text_labels
    if config.modality_invariance_weight > 0:
        modality_invariance = modality_invariance_loss(*embeddings, similarity=config.label_similarity)
        terms["modality_invariance"] = config.modality_invariance_weight, modality_invariance
    if config.contrastive_weight > 0:
        contrastive = soft_contrastive_loss(
            *embeddings,
            temperature=config.temperature,
            intra_modal_weight=config.intra_modal_weight,
            denominator_scale=config.denominator_scale,
            similarity=config.label_similarity,
        )
        terms["soft_contrastive"] = config.contrastive_weight, contrastive
    if network.relevance_calibration is not None:
        relevance = relevance_loss(
            *embeddings,
            calibration=network.relevance_calibration,
            intra_modal_weight=config.intra_modal_weight,
            similarity=config.label_similarity,
        )
        terms["relevance"] = config.relevance_weight, relevance
    accuracies = {}
    if output.translation is not None:
        modality = output.translation.modality
        terms["adversarial"] = config.adversarial_weight, adversarial_loss(modality)
        if config.reconstruction_weight > 0:
            image = output.translation.image[batch.text_of_pair], batch.image[batch.image_of_pair]
            text = output.translation.text[batch.image_of_pair], batch.text[batch.text_of_pair]
            reconstruction = reconstruction_loss(*image) + reconstruction_loss(*text)
            terms["reconstruction"] = config.reconstruction_weight, reconstruction
        for name, accuracy in discriminator_accuracy(modality)._asdict().items():
            accuracies[f"discriminator_accuracy_{name}"] = accuracy
    total = image_labels.new_zeros(())
    for weight, term in terms.values():
        total = total + weight * term
    return Losses(total, {name: term for name, (_, term) in terms.items()}, accuracies)


def dscmr_objective(network: DSCMR, pairs: PairOutput, labels: Tensor) -> Losses:
    """DSCMR: classification + 1e-3 pairwise similarity (shares a label or not) + 1e-1 distance within pairs.

    Shape:
        labels Y [N, C], in the dtype of the embeddings.
    """
    image, text = pairs
    classification = classification_loss(network.classifier(image), labels)
    classification = classification + classification_loss(network.classifier(text), labels)
    similarity = modality_invariance_loss(image, text, labels, labels, similarity="binary")
    distance = vector_norm(image - text, dim=1).mean()
    total = classification + DSCMR_SIMILARITY_WEIGHT * similarity + DSCMR_DISTANCE_WEIGHT * distance
    terms = {"classification": classification, "modality_invariance": similarity, "distance": distance}
    return Losses(total, terms, {})
