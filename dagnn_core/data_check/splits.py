"""Whether the splits of a data set are sound: no copies between them, the same labels in all of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.section import DEFAULT_SEED
from dagnn_core.data.dataset import SPLITS, Dataset
from dagnn_core.data.labels import same_but_for_case
from dagnn_core.data_check.copies import CopyRates, Items, copy_rates, text_keys
from dagnn_core.data_check.findings import Finding, Limits, judge
from dagnn_core.data_check.statistics import label_shifts
from dagnn_core.data_check.traits import ImageTraits
from dagnn_core.retrieval.relevance import relevant_pairs


class LabelledItems(NamedTuple):
    """Labels of some items."""

    name: str
    """What examples call the items."""
    labels: NDArray[np.uint8]
    """[N, C]."""


def check_splits(dataset: Dataset, traits: ImageTraits, limits: Limits) -> Iterator[Finding]:
    """Look for copies, for leaks between the splits, and for labels that differ between them."""
    yield from _copies(dataset, traits, limits)
    yield from _labels(dataset, limits)


def _copies(dataset: Dataset, traits: ImageTraits, limits: Limits) -> Iterator[Finding]:
    splits = dataset.splits.tolist()
    items = Items(
        names=[f"{item} ({split})" for item, split in zip(dataset.ids, splits, strict=True)],
        groups=np.array([SPLITS.index(split) for split in splits]),
        counted=dataset.splits != "train",
        is_written=dataset.is_written,
        text_keys=text_keys(dataset),
        traits=traits,
    )
    rates = copy_rates(items, near_distance=limits.near_distance)
    if traits.has_encoded_image.any():
        yield from _image_copies(rates, limits)
    yield judge(
        "leaked_texts",
        rates.texts.across,
        limits.leaked_texts,
        "fraction of val and test texts that another split has with the same labels; right where names are short, "
        "else put copies into one split",
        examples=rates.texts.examples_across,
        above="warning",
    )


def _image_copies(rates: CopyRates, limits: Limits) -> Iterator[Finding]:
    for name, what, rate in (
        ("repeated_images", "identical", rates.images),
        ("repeated_near_images", "nearly identical", rates.near_images),
    ):
        yield judge(
            name,
            rate.within,
            limits.leaked_images,
            f"fraction of images that are {what} to an earlier one of their split, so that they count twice; keep one "
            "(dataset.copies: drop does so where splits are drawn)",
            examples=rate.examples_within,
            above="warning",
        )
    for name, what, rate in (
        ("leaked_images", "that another split has, too", rates.images),
        ("leaked_near_images", "that another split has nearly identically", rates.near_images),
    ):
        yield judge(
            name,
            rate.across,
            limits.leaked_images,
            f"fraction of val and test images {what}, which flatters the results; put copies into one split "
            "(dataset.copies: group does so where splits are drawn)",
            examples=rate.examples_across,
        )


def _labels(dataset: Dataset, limits: Limits) -> Iterator[Finding]:
    names = dataset.label_names
    train = dataset.labels[dataset.rows("train")]
    train = train[train.any(axis=1)]  # the others are unlabelled
    counts = train.sum(axis=0, dtype=np.int64)
    held_out = dataset.labels[dataset.splits != "train"]
    unlearned = [names[label] for label in np.flatnonzero(held_out.any(axis=0) & (counts == 0))]
    yield judge(
        "labels_not_in_train",
        len(unlearned),
        0,
        "labels of val and test that no training item has, so nothing learns them; draw the splits again",
        examples=unlearned,
    )
    shares = held_out.mean(axis=0) if len(held_out) else np.zeros(len(names))
    yield judge(
        "relevant_pairs",
        relevant_pairs(held_out, seed=DEFAULT_SEED),
        limits.relevant_pairs,
        "share of pairs of val and test items that have a label in common, which is about the MAP of a random ranking; "
        "near 1, no model can be told from chance: drop labels that nearly every item has, or correct how labels are "
        "read (values of a 0/1 column are no labels)",
        examples=[f"{names[label]}: {shares[label]:.1%} of them" for label in np.argsort(-shares, kind="stable")],
    )
    rare = [f"{names[label]} ({counts[label]})" for label in np.argsort(counts, kind="stable")]
    rare = rare[: int((counts < limits.label_count).sum())]
    yield judge(
        "rare_labels",
        len(rare),
        0,
        f"labels on fewer than {limits.label_count} training items; collect more, or raise dataset.min_label_count",
        examples=rare,
        above="warning",
    )
    on_items = dict(zip(names, dataset.labels.sum(axis=0, dtype=np.int64).tolist(), strict=True))
    alike = same_but_for_case(on_items)
    yield judge(
        "labels_alike_but_for_case",
        sum(map(len, alike)) - len(alike),
        0,
        "labels that differ from another in case alone; to make them one, import again with dataset.label_case: fold",
        examples=(" and ".join(f"{name} ({on_items[name]})" for name in same) for same in alike),
        above="warning",
    )
    for split in ("val", "test"):
        rows = dataset.rows(split)
        if not len(rows) or not len(train):
            continue
        yield label_shift(
            f"label_shift_{split}",
            LabelledItems(split, dataset.labels[rows]),
            LabelledItems("train", train),
            label_names=names,
            limits=limits,
            remedy="draw the splits again, unless they differ on purpose",
        )


def label_shift(
    name: str,
    items: LabelledItems,
    reference: LabelledItems,
    *,
    label_names: Sequence[str],
    limits: Limits,
    remedy: str,
) -> Finding:
    """Compare how frequent each label is in two sets of items."""
    shifts = label_shifts(items.labels, reference.labels)
    shares, reference_shares = items.labels.mean(axis=0), reference.labels.mean(axis=0)
    shifted = [label for label in np.argsort(-shifts, kind="stable").tolist() if shifts[label] > 0]
    return judge(
        name,
        float(shifts.max()),
        limits.label_shift,
        f"largest significant difference of a label's frequency (Cohen's h) from {reference.name}; {remedy}",
        examples=[
            f"{label_names[label]}: {shares[label]:.1%} of {items.name}, "
            f"{reference_shares[label]:.1%} of {reference.name}"
            for label in shifted
        ],
    )
