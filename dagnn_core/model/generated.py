"""Embeddings of a trained network whose ranking also knows labels that it was not trained on."""

import numpy as np
import torch
from numpy.typing import NDArray

from dagnn_core.model.files import TrainedNetwork
from dagnn_core.nn.dagnn import DAGNN


def can_generate(model: TrainedNetwork) -> bool:
    """Whether the network has a label GNN, which generates classifiers, and label probabilities."""
    return isinstance(model.network, DAGNN) and model.network.generates_classifiers


@torch.inference_mode()
def embed_with_generated(
    model: TrainedNetwork,
    image: NDArray[np.float32],
    text: NDArray[np.float32],
    vectors: NDArray[np.float32],
    *,
    alone: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed images and texts with the probabilities of further labels, see `DAGNN.embed_with_generated`.

    Args:
        model: of which `can_generate` is true.
        image: image features.
        text: text features.
        vectors: of the labels that it was not trained on, as the label graph has those of its own.
        alone: rank by these labels alone, not by what the model ranks by as well.

    Shape:
        image [N, d_I], text [N, d_T], vectors [U, e] -> two of [N, K].
    """
    network = model.network
    assert isinstance(network, DAGNN)
    x_image, x_text, further = (
        torch.tensor(array, device=next(network.parameters()).device) for array in (image, text, vectors)
    )
    embedded = (
        network.embed_with_generated(x_image, "image", further, alone=alone),
        network.embed_with_generated(x_text, "text", further, alone=alone),
    )
    return embedded[0].cpu().numpy(), embedded[1].cpu().numpy()
