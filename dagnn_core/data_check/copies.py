"""Copies between groups of items: between the splits of one data set, or between two data sets."""

# N items

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.dataset import Dataset
from dagnn_core.data.ingest.duplicates import Copies, content_key, find_copies
from dagnn_core.data.ingest.near_copies import find_near_copies
from dagnn_core.data_check.traits import ImageTraits


class Items(NamedTuple):
    """Items of all groups, [N] each."""

    names: Sequence[str]
    """What examples call them."""
    groups: NDArray[np.int64]
    """Numbers from 0."""
    counted: NDArray[np.bool_]
    """The items of which `CopyRate.across` is a fraction."""
    is_written: NDArray[np.bool_]
    """Which have a text in words."""
    text_keys: NDArray[np.uint64]
    """Hashes of text and labels."""
    traits: ImageTraits


class CopyRate(NamedTuple):
    """How many items are copies."""

    within: float
    """Fraction of all items that repeat an earlier one of their group."""
    across: float
    """Fraction of the counted items that another group has, too."""
    examples_within: Sequence[str]
    examples_across: Sequence[str]


class CopyRates(NamedTuple):
    """Copies of each kind."""

    images: CopyRate
    """The same bytes."""
    near_images: CopyRate
    """Other bytes, but nearly the same image."""
    texts: CopyRate
    """The same text with the same labels."""


def text_keys(dataset: Dataset) -> NDArray[np.uint64]:
    """Hashes of text and labels together, [N]."""
    names = np.array(dataset.label_names)
    contents = (
        "\0".join([text, *sorted(names[labels > 0].tolist())])
        for text, labels in zip(dataset.texts, dataset.labels, strict=True)
    )
    return np.array([content_key(content.encode()) for content in contents], np.uint64)


def copy_rates(items: Items, *, near_distance: int) -> CopyRates:
    """Look for copies of images and of texts.

    Args:
        items: of all groups.
        near_distance: bits in which the hashes of near-identical images may differ.
    """
    traits = items.traits
    with_image = np.flatnonzero(traits.has_encoded_image)
    identical = find_copies(traits.keys[with_image], items.groups[with_image])
    # of identical images in one group, one is enough: else a thousand blank ones were half a million near pairs
    distinct = with_image[~identical.within & traits.decodes[with_image]]
    near = find_near_copies(
        traits.keys[distinct],
        traits.hashes[distinct],
        traits.tiles[distinct],
        items.groups[distinct],
        max_distance=near_distance,
    )
    written = np.flatnonzero(items.is_written)
    return CopyRates(
        images=_rate(items, with_image, identical),
        near_images=_rate(items, distinct, near),
        texts=_rate(items, written, find_copies(items.text_keys[written], items.groups[written])),
    )


def _rate(items: Items, rows: NDArray[np.int64], copies: Copies) -> CopyRate:
    counted = items.counted[rows]

    def named(pairs: Sequence[tuple[int, int]]) -> list[str]:
        return [f"{items.names[rows[one]]} = {items.names[rows[other]]}" for one, other in pairs]

    return CopyRate(
        within=float(copies.within.mean()) if len(rows) else 0.0,
        across=float(copies.across[counted].mean()) if counted.any() else 0.0,
        examples_within=named(copies.examples_within),
        examples_across=named(copies.examples_across),
    )
