"""The layout of lifted vectors: a score that is no cosine of embeddings, written as the cosine of other vectors.

| `model.ranking` | an image | a text | cosine |
|---|---|---|---|
| `labels` | p, r, 0 | q, 0, r | p·q / C |
| `hybrid` | √w p, √(1-v) f_I, √v c_I, r, 0 | √w q, √(1-v) f_T, √v c_T, 0, r | s / (1 + w C) |

with s = w p·q + (1-v) cos(f_I, f_T) + v cos(c_I, c_T). p and q are label probabilities; p·q is the expected number of
shared labels, where those of an image and a text are independent. f are embeddings, c canonical variates, both of
length 1. As a cosine, all vectors need one length, √C and √(1 + w C): r is the missing part, in an entry of its
modality where the other is zero (maximum inner product search as cosine search; Bachrach et al., RecSys 2014).

Shapes: N items, C labels, d embedding dimension, k canonical components, K = compared entries.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dagnn_core.config.model import ModelConfig

Modality = Literal["image", "text"]
CANONICAL_COMPONENTS = 64  # at most; further ones correlate little


class Parts(NamedTuple):
    """What the hybrid ranking compares of some items of one modality."""

    probabilities: Tensor
    """p [N, C]."""
    embedding: Tensor
    """f [N, d], of any length; a zero one has cosine 0 with all others."""
    canonical: Tensor
    """c [N, k], likewise."""


def num_canonical(image_dim: int, text_dim: int) -> int:
    """Number k of canonical components that the hybrid ranking compares."""
    return min(CANONICAL_COMPONENTS, image_dim, text_dim)


def output_dim(config: ModelConfig, *, num_labels: int, image_dim: int, text_dim: int) -> int:
    """Dimension of the vectors that a network embeds images and texts as."""
    if config.kind != "dagnn" or config.ranking == "embedding":
        return config.embedding_dim
    further = config.embedding_dim + num_canonical(image_dim, text_dim) if config.ranking == "hybrid" else 0
    return num_labels + further + 2


def lift_probabilities(probabilities: Tensor, modality: Modality) -> Tensor:
    """Label probabilities to vectors whose cosine between the modalities is p·q / C.

    Shape:
        [N, C] -> [N, C + 2].
    """
    return _lift(probabilities, probabilities.shape[1], modality)


def lift_hybrid(parts: Parts, modality: Modality, *, label_weight: Tensor, canonical_share: Tensor) -> Tensor:
    """The parts of the hybrid ranking to vectors whose cosine between the modalities is s / (1 + w C).

    Args:
        parts: of some items.
        modality: of the items.
        label_weight: w, above 0.
        canonical_share: v, from 0 to 1.

    Shape:
        label_weight [], canonical_share [] -> [N, C + d + k + 2].
    """
    embedding, canonical = (nn.functional.normalize(part, dim=1) for part in (parts.embedding, parts.canonical))
    entries = [
        label_weight.sqrt() * parts.probabilities,
        (1 - canonical_share).sqrt() * embedding,
        canonical_share.sqrt() * canonical,
    ]
    return _lift(torch.cat(entries, dim=1), 1 + label_weight * parts.probabilities.shape[1], modality)


def lowered_probabilities(vectors: Tensor, num_labels: int, label_weight: Tensor | float = 1.0) -> Tensor:
    """The label probabilities in lifted vectors, of `labels` by default.

    Shape:
        [N, K + 2] -> [N, C].
    """
    return vectors[:, :num_labels] / torch.as_tensor(label_weight).sqrt()


def as_other_modality(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lifted vectors of one modality as if they were of the other, to be compared with vectors of their own.

    Shape:
        [..., K + 2] -> the same.
    """
    return np.concatenate([vectors[..., :-2], vectors[..., -1:], vectors[..., -2:-1]], axis=-1)


def _lift(entries: Tensor, squared_length: Any, modality: Modality) -> Tensor:
    missing = (squared_length - entries.square().sum(dim=1, keepdim=True)).clamp_min(0).sqrt()
    zero = torch.zeros_like(missing)
    return torch.cat([entries, *((missing, zero) if modality == "image" else (zero, missing))], dim=1)
