"""The features as they are: image and text vectors of one two-tower model, such as CLIP or SigLIP, without training."""

import torch

from dagnn_core.baselines.linear_towers import LinearTowers, Pairs, linear_towers
from dagnn_core.errors import InputError


def fit(train: Pairs, val: Pairs) -> LinearTowers:
    """Two identities; nothing is fitted.

    Raises:
        InputError: image and text features have different dimensions.
    """
    image_dim, text_dim = train.image.shape[1], train.text.shape[1]
    if image_dim != text_dim:
        raise InputError(
            f"model.kind is pretrained, which compares the features as they are, but image features have dimension "
            f"{image_dim} and text features {text_dim}, expected equal ones",
            "take both from one two-tower model (features.image and features.text: huggingface, with image_pooling and "
            "text_pooling: projection), or from precomputed vectors of one",
        )
    identity, zero = torch.eye(image_dim), torch.zeros(image_dim)
    return linear_towers(identity, zero, identity, zero)
