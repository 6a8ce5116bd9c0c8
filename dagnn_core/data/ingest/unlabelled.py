"""Unlabelled training items for experiments: few keep their labels."""

from collections.abc import Sequence

from dagnn_core.data.ingest.first_of_label import first_of_each_label
from dagnn_core.data.raw import RawItem
from dagnn_core.data.splits import hash_point
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
    training = sorted(
        (item for item in items if item.split == "train"),
        key=lambda item: hash_point(item.id, seed=seed, purpose="labelled"),
    )
    first = first_of_each_label(training)
    num_labelled = round(labelled_fraction * len(training))
    if num_labelled < len(first):
        raise InputError(
            f"dataset.labelled_fraction is {labelled_fraction:g}, which keeps the labels of {num_labelled} of "
            f"{len(training)} training items, expected at least {len(first)}, so that every label stays on one",
            "raise it, or drop rare labels with dataset.min_label_count",
        )
    chosen = {item.id for item in first}
    others = [item.id for item in training if item.id not in chosen]
    chosen |= set(others[: num_labelled - len(first)])
    return [item if item.split != "train" or item.id in chosen else item._replace(labels=()) for item in items]
