"""Classification loss of both modalities."""

from torch import Tensor
from torch.linalg import vector_norm


def classification_loss(image_scores: Tensor, text_scores: Tensor, labels: Tensor) -> Tensor:
    """Distance of the scores from the label vectors, mean over the batch: mean ‖y_I - Y‖₂ + mean ‖y_T - Y‖₂.

    The norm is not squared, as published (AAAI 2021; the first term of DSCMR); PyTorch's norm has gradient 0 at 0.

    Shape:
        image_scores, text_scores, labels: [B, C] -> scalar.
    """
    distances: Tensor = vector_norm(image_scores - labels, dim=1) + vector_norm(text_scores - labels, dim=1)
    return distances.mean()
