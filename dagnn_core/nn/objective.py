"""The objective of DAGNN: a weighted sum of loss terms."""

from torch import Tensor

from dagnn_core.config.model import ModelConfig
from dagnn_core.losses.adversarial import adversarial_loss, discriminator_accuracy
from dagnn_core.losses.agreement import agreement_loss
from dagnn_core.losses.batch import Batch, Losses
from dagnn_core.losses.classification import classification_loss, label_cross_entropy
from dagnn_core.losses.info_nce import info_nce_loss
from dagnn_core.losses.modality_invariance import modality_invariance_loss
from dagnn_core.losses.reconstruction import reconstruction_loss
from dagnn_core.losses.relevance import relevance_loss
from dagnn_core.losses.soft_contrastive import soft_contrastive_loss
from dagnn_core.nn.dagnn import DAGNN, DAGNNOutput
from dagnn_core.registry import load


def objective(network: DAGNN, batch: Batch, config: ModelConfig, *, reversal: float) -> Losses:
    """Run a batch through the network and compute its objective.

    Args:
        network: what is trained.
        batch: the batch.
        config: weights and options of the terms.
        reversal: strength λ of the gradient reversal.
    """
    output = network(
        batch.image,
        batch.text,
        num_real_image=batch.num_real_image,
        num_real_text=batch.num_real_text,
        reversal=reversal,
    )
    return dagnn_objective(network, output, batch, config)


def dagnn_objective(network: DAGNN, output: DAGNNOutput, batch: Batch, config: ModelConfig) -> Losses:
    """L = a L_cls + b L_mi + c L_softcon + r L_rel + β L_adv + ρ L_rec + π L_pair + κ L_agree.

    Terms of weight zero are left out. AAAI 2021: a = 1, b = α, the others 0; TPAMI 2022: a = α, c = 1, the others 0,
    beside β in both. The last four terms need no labels, and take the unlabelled items too.
    """
    image_embedding, image_scores, image_labels = _labelled(
        batch.labelled_images, output.image_embedding, output.image_scores, batch.image_labels
    )
    text_embedding, text_scores, text_labels = _labelled(
        batch.labelled_texts, output.text_embedding, output.text_scores, batch.text_labels
    )
    terms: dict[str, tuple[float, Tensor]] = {}
    if config.classification_weight > 0:
        scores = (image_scores, image_labels), (text_scores, text_labels)
        if network.label_calibration is None:
            image_loss, text_loss = (classification_loss(cosines, labels) for cosines, labels in scores)
        else:
            logits = ((network.label_calibration(cosines), labels) for cosines, labels in scores)
            image_loss, text_loss = (label_cross_entropy(*pair) for pair in logits)
        terms["classification"] = config.classification_weight, image_loss + text_loss
    embeddings = image_embedding, text_embedding, image_labels, text_labels
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
    if config.custom_loss_weight > 0:
        custom_loss = load(config.custom_loss, "model.custom_loss")
        terms["custom"] = config.custom_loss_weight, custom_loss(*embeddings)
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
    terms |= _pair_terms(network, output, batch, config)
    total = image_labels.new_zeros(())
    for weight, term in terms.values():
        total = total + weight * term
    return Losses(total, {name: term for name, (_, term) in terms.items()}, accuracies)


def _pair_terms(
    network: DAGNN, output: DAGNNOutput, batch: Batch, config: ModelConfig
) -> dict[str, tuple[float, Tensor]]:
    """The terms that compare an image with its own text, and their weights; 0 where a batch has no pair."""
    terms: dict[str, tuple[float, Tensor]] = {}
    none = batch.image_labels.new_zeros(())
    has_pairs = len(batch.image_of_pair) > 0
    if network.pair_log_scale is not None:
        embeddings = output.image_embedding[batch.image_of_pair], output.text_embedding[batch.text_of_pair]
        further = None
        if batch.pair_memory is not None:
            assert batch.pair_rows is not None
            further = batch.pair_memory.beside(batch.pair_rows)
            batch.pair_memory.add(*embeddings, batch.pair_rows)
        pair_loss = info_nce_loss(*embeddings, network.pair_log_scale, further) if has_pairs else none
        terms["pair"] = config.pair_weight, pair_loss
    if config.agreement_weight > 0:
        assert network.label_calibration is not None
        scores = output.image_scores[batch.image_of_pair], output.text_scores[batch.text_of_pair]
        logits = (network.label_calibration(cosines) for cosines in scores)
        terms["agreement"] = config.agreement_weight, agreement_loss(*logits) if has_pairs else none
    return terms


def _labelled(rows: Tensor | None, embedding: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the label losses compare: all rows, or those whose labels are known."""
    return (embedding, scores, labels) if rows is None else (embedding[rows], scores[rows], labels[rows])
