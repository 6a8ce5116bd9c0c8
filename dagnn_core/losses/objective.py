"""The objective: weighted sum of the loss terms."""

from typing import NamedTuple

from torch import Tensor

from dagnn_core.config import ModelConfig
from dagnn_core.losses.adversarial import adversarial_loss
from dagnn_core.losses.classification import classification_loss
from dagnn_core.losses.modality_invariance import modality_invariance_loss
from dagnn_core.nn.dagnn import DAGNNOutput


class LossTerms(NamedTuple):
    """The total, which is minimised, and its unweighted terms; scalars."""

    total: Tensor
    classification: Tensor
    modality_invariance: Tensor
    adversarial: Tensor


def aaai21_objective(output: DAGNNOutput, labels: Tensor, config: ModelConfig) -> LossTerms:
    """Compute L = L_cls + α L_mi + β L_adv (AAAI 2021), scalars over a batch.

    Shape:
        labels Y [B, C], in the dtype of the scores.
    """
    classification = classification_loss(output.image_scores, output.text_scores, labels)
    modality_invariance = modality_invariance_loss(output.image_embedding, output.text_embedding, labels)
    adversarial = adversarial_loss(output.modality)
    total = (
        classification
        + config.modality_invariance_weight * modality_invariance
        + config.adversarial_weight * adversarial
    )
    return LossTerms(total, classification, modality_invariance, adversarial)
