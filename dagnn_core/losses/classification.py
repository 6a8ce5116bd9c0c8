"""Classification losses of a modality."""

from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional


def classification_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Distance of the scores of one modality from the label vectors, mean over its items: mean ‖y - Y‖₂.

    The norm is not squared, as published (AAAI 2021; the first term of DSCMR); PyTorch's norm has gradient 0 at 0.

    Shape:
        scores, labels: [B, C] -> scalar.
    """
    distances: Tensor = vector_norm(scores - labels, dim=1)
    return distances.mean()


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of every label, sum over the labels, mean over the items.

    Shape:
        logits, labels: [B, C] -> scalar.
    """
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(labels)
