"""How alike the labels of two items are: the targets of the pairwise losses."""

from typing import Literal

from torch import Tensor

LabelSimilarity = Literal["count", "binary", "jaccard"]


def label_similarity(labels: Tensor, others: Tensor, kind: LabelSimilarity) -> Tensor:
    """Similarity of every item with every other item, by their labels.

    `count`: number of shared labels (AAAI 2021); `binary`: 1 where one is shared (TPAMI 2022); `jaccard`: shared
    labels over all labels of either, in [0, 1], which the TPAMI 2022 abstract argues for.

    Shape:
        labels Y [B, C], others [B', C] -> [B, B'].
    """
    shared = labels @ others.T
    if kind == "binary":
        return shared.clamp_max(1)
    if kind == "jaccard":
        union = labels.sum(dim=1, keepdim=True) + others.sum(dim=1) - shared
        return shared / union.clamp_min(1)  # two items without any label share nothing
    return shared
