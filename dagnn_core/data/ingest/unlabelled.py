"""Unlabelled training items for experiments: few keep their labels."""

from collections.abc import Sequence

from dagnn_core.data.ingest.draw_with_labels import draw_with_every_label
from dagnn_core.data.raw import RawItem
from dagnn_core.errors import InputError


def take_labels_away(items: Sequence[RawItem], *, labelled_fraction: float, seed: int) -> list[RawItem]:
    """Take the labels from all training items but a fraction, so that every label stays on one at least.

    The training items are ordered by a hash of (seed, id). First come those that are the first with one of their
    labels, rare labels before frequent ones, then the others: so a larger fraction keeps the same labels and more.

    Args:
        items: all items; those of val and test stay as they are.
        labelled_fraction: of the training items that keep their labels, above 0; 1: all.
        seed: draws the order.

    Raises:
        InputError: the fraction is too small for an item of every label.
    """
    if labelled_fraction == 1:
        return list(items)
    training = [item for item in items if item.split == "train"]
    drawn = draw_with_every_label(training, seed=seed, purpose="labelled")
    num_labelled = round(labelled_fraction * len(training))
    if num_labelled < drawn.least:
        raise InputError(
            f"dataset.labelled_fraction is {labelled_fraction:g}, which keeps the labels of {num_labelled} of "
            f"{len(training)} training items, expected at least {drawn.least}, so that every label stays on one",
            "raise it, or drop rare labels with dataset.min_label_count",
        )
    chosen = set(drawn.ids[:num_labelled])
    return [item if item.split != "train" or item.id in chosen else item._replace(labels=()) for item in items]
