"""A longer tail of rare labels for experiments: most training items that carry one are left out."""

import math
from collections import Counter
from collections.abc import Sequence

from dagnn_core.data.ingest.draw_with_labels import draw_with_every_label
from dagnn_core.data.raw import RawItem

RARE_LABELS = 0.25  # rarest fraction of the labels, as in the gate and in the tables of `dagnn bench quality`


def thinned_items(items: Sequence[RawItem], *, rare_fraction: float, seed: int) -> frozenset[str]:
    """Ids of the training items to leave out, so that a fraction of those with a rare label stays.

    Rare is the quarter of the labels that fewest training items carry. The items that carry one are ordered by a hash
    of (seed, id), but first come those that are the first with one of these labels: every label stays on one item, and
    a larger fraction keeps the same items and more.

    Args:
        items: all items; those of val and test are never left out.
        rare_fraction: of the training items with a rare label that stay, above 0; 1: all.
        seed: draws the order.
    """
    if rare_fraction == 1:
        return frozenset()
    training = [item for item in items if item.split == "train"]
    counts = Counter(name for item in training for name in item.labels)
    rarest = set(sorted(counts, key=lambda name: (counts[name], name))[: math.ceil(RARE_LABELS * len(counts))])
    with_rare = [item for item in training if not rarest.isdisjoint(item.labels)]
    drawn = draw_with_every_label(with_rare, seed=seed, purpose="long tail")
    return frozenset(drawn.ids[max(drawn.least, round(rare_fraction * len(with_rare))) :])
