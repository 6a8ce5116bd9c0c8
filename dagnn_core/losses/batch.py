"""What an objective takes and gives."""

from typing import NamedTuple

from torch import Tensor

from dagnn_core.losses.pair_memory import PairMemory


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
    labelled_images: Tensor | None = None
    """Positions of the images whose labels count; None: all."""
    labelled_texts: Tensor | None = None
    """Positions of the texts whose labels count; None: all."""
    pair_rows: Tensor | None = None
    """Row numbers of the P items in the training split, [P]; the memory knows them by these."""
    pair_memory: PairMemory | None = None
    """Pairs of earlier steps; the objective adds those of this one."""


class Losses(NamedTuple):
    """What a step minimises and what it logs; scalars."""

    total: Tensor
    terms: dict[str, Tensor]
    """The unweighted terms that take part, by name."""
    accuracies: dict[str, Tensor]
    """Discriminator accuracies, for the log."""
