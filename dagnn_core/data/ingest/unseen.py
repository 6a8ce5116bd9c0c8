"""Unseen labels, for experiments: what only test items carry (extendable retrieval; Liu et al. 2017)."""

import difflib
import logging
from collections.abc import Iterable, Sequence, Set

from dagnn_core.config.dataset import DatasetConfig
from dagnn_core.data.raw import RawItem
from dagnn_core.data.splits import hash_point
from dagnn_core.errors import InputError
from dagnn_core.text import name_first, quote

log = logging.getLogger(__name__)


def choose_unseen(items: Sequence[RawItem], config: DatasetConfig) -> frozenset[str]:
    """The labels that training must not see: those that are named, or a fraction that is drawn.

    Args:
        items: all usable items, with their splits.
        config: names or fraction, and seed.

    Raises:
        InputError: no item has a label of that name, no test item has an unseen label, or every item of another split
            has one.
    """
    labels = {label for item in items for label in item.labels}
    for name in config.unseen_labels:
        if name not in labels:
            close = difflib.get_close_matches(name, sorted(labels), n=1)
            hint = f"did you mean {quote(close[0])}? " if close else ""
            raise InputError(
                f"dataset.unseen_labels: no item has the label {quote(name)}", f"{hint}name labels of the data"
            )
    unseen = frozenset(config.unseen_labels) or draw_labels(labels, config.unseen_fraction, seed=config.seed)
    if config.unseen_fraction and not unseen:
        raise InputError(
            f"dataset.unseen_fraction is {config.unseen_fraction} of {len(labels)} labels, expected at least one label",
            "raise it",
        )
    if unseen:
        _check_splits(items, unseen)
    return unseen


def draw_labels(labels: Iterable[str], fraction: float, *, seed: int) -> frozenset[str]:
    """Draw a fraction of some labels: the first by a hash of (seed, label), so a larger one has the same and more."""
    order = sorted(labels, key=lambda name: (hash_point(name, seed=seed, purpose="unseen"), name))
    return frozenset(order[: round(fraction * len(order))])


def hold_back(item: RawItem, unseen: Set[str]) -> bool:
    """Whether an item must be left out, since training or validation would see an unseen label."""
    return item.split != "test" and not unseen.isdisjoint(item.labels)


def set_apart(items: Sequence[RawItem], unseen: Set[str], trained: Set[str]) -> tuple[list[RawItem], frozenset[str]]:
    """Move the unseen labels of the test items to `unseen_labels`.

    Args:
        items: without those to hold back.
        unseen: the unseen labels.
        trained: labels of the training items before any was held back.

    Returns:
        The items, and the labels that they have lost: no training item is left that carries them.
    """
    lost = frozenset(trained - unseen - training_labels(items))
    if lost:
        log.warning(
            "%d labels are dropped, since every training item with one of them also has an unseen label: %s",
            *(len(lost), name_first([quote(name) for name in sorted(lost)])),
        )
    gone = unseen | lost
    return [
        item._replace(
            labels=tuple(name for name in item.labels if name not in gone),
            unseen_labels=tuple(name for name in item.labels if name in unseen),
        )
        for item in items
    ], lost


def training_labels(items: Sequence[RawItem]) -> frozenset[str]:
    """The labels that a training item carries."""
    return frozenset(label for item in items if item.split == "train" for label in item.labels)


def _check_splits(items: Sequence[RawItem], unseen: Set[str]) -> None:
    named = name_first([quote(name) for name in sorted(unseen)])
    if not any(item.split == "test" and not unseen.isdisjoint(item.labels) for item in items):
        raise InputError(
            f"no test item has an unseen label ({named}), expected some as queries",
            "name other labels in dataset.unseen_labels, or raise dataset.unseen_fraction",
        )
    for split in ("train", "val"):
        of_split = [item for item in items if item.split == split]
        if all(hold_back(item, unseen) for item in of_split):
            raise InputError(
                f"all {len(of_split)} items of the split {split!r} have an unseen label ({named}), expected some that "
                "have none",
                "name fewer or rarer labels in dataset.unseen_labels, or lower dataset.unseen_fraction",
            )
