"""Agreement of the label probabilities of an image and its text: what labels say without anybody having given them."""

from torch import Tensor

from dagnn_core.losses.classification import label_cross_entropy


def agreement_loss(image_logits: Tensor, text_logits: Tensor) -> Tensor:
    """Cross-entropy of the labels of each modality, with the probabilities of the partner as constant targets.

    One modality often knows what the other must still learn, as in co-training (Blum and Mitchell, COLT 1998).

    Shape:
        image_logits, text_logits: [P, C], of pairs, P above 0 -> scalar.
    """
    image_targets, text_targets = (logits.detach().sigmoid() for logits in (text_logits, image_logits))
    return label_cross_entropy(image_logits, image_targets) + label_cross_entropy(text_logits, text_targets)
