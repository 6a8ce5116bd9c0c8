"""Draw the splits: every item by the hash of its id, and copies of one image together."""

# N items

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.dataset import NEAR_DISTANCE, DatasetConfig
from dagnn_core.data.dataset import Rejection
from dagnn_core.data.ingest.near_copies import group_copies
from dagnn_core.data.raw import RawData, RawItem, Reason
from dagnn_core.data.splits import draw_split


class Drawn(NamedTuple):
    """Items with their splits."""

    items: list[RawItem]
    rejections: list[Rejection]
    """Copies, where these are dropped."""
    copies: dict[str, Any]
    """What the manifest says about copies: the rule, and counts."""


def is_drawn(raw: RawData, item: RawItem) -> bool:
    """Whether the split of an item is drawn: the data does not name it."""
    return item.split == "train" if raw.draws_val else item.split == ""


def can_be_held_out(raw: RawData, item: RawItem) -> bool:
    """Whether val and test may have the item: they are for complete ones, where the data has any images."""
    return item.is_complete or raw.is_text_alone


def draw_splits(raw: RawData, items: Sequence[RawItem], fingerprints: NDArray[np.void], config: DatasetConfig) -> Drawn:
    """Give a split to every item that has none.

    The split is drawn by the hash of the item's `group` or id. Items whose images are copies of each other, or that
    are linked by such ones, draw by the smallest of theirs; where one of them can't be held out, all are training
    items. So neither the order of the items nor how they are stored plays a part, and items without copies have the
    split that they have without the rule. Where copies are dropped, the first complete one stays.

    Args:
        raw: where the items come from.
        items: usable ones.
        fingerprints: of the images of all items of `raw`; empty where copies are not looked for.
        config: seed, fractions, and what becomes of copies.
    """
    drawn = [item for item in items if is_drawn(raw, item)]
    sets = _Sets()
    if len(fingerprints):
        _unite_copies(raw, drawn, fingerprints, sets)
    dropped: dict[int, str] = {}
    sizes = Counter(sets.find(unit_of(item)) for item in drawn if unit_of(item) in sets)
    if config.copies == "drop":
        dropped = _repetitions(drawn, sets)
        drawn, sets = [item for item in drawn if item.row not in dropped], _Sets()
    always_training = {sets.find(unit_of(item)) for item in drawn if not can_be_held_out(raw, item)}

    def placed(item: RawItem) -> RawItem:
        if not is_drawn(raw, item):
            return item
        key = sets.find(unit_of(item))
        return item._replace(split="train" if key in always_training else _draw(raw, key, config))

    summary = {
        "rule": config.copies,
        "near_distance": NEAR_DISTANCE,
        "drawn_items": len(drawn) + len(dropped),
        "groups": len(sizes),
        "items": sizes.total(),
        "largest_group": max(sizes.values(), default=0),
        "dropped": len(dropped),
    }
    return Drawn(
        [placed(item) for item in items if item.row not in dropped],
        [Rejection(item.row, item.id, Reason.COPY, f"of {dropped[item.row]}") for item in items if item.row in dropped],
        summary,
    )


def unit_of(item: RawItem) -> str:
    """What shares a split whatever its images: the items of one `group`, or the item."""
    return item.group or item.id


class _Sets:
    """Disjoint sets of units, each called by its smallest one; a unit that was never united is a set of its own."""

    def __init__(self) -> None:
        self._up: dict[str, str] = {}

    def __contains__(self, unit: str) -> bool:
        """Whether it was united with another one."""
        return unit in self._up

    def find(self, unit: str) -> str:
        """The smallest unit of the set."""
        path = []
        while (up := self._up.get(unit, unit)) != unit:
            path.append(unit)
            unit = up
        self._up |= dict.fromkeys(path, unit)
        return unit

    def unite(self, one: str, other: str) -> None:
        """Make one set of those of two units."""
        low, high = sorted((self.find(one), self.find(other)))
        if low != high:
            self._up[high] = self._up[low] = low


def _unite_copies(raw: RawData, drawn: Iterable[RawItem], fingerprints: NDArray[np.void], sets: _Sets) -> None:
    index_of_row = {item.row: index for index, item in enumerate(raw.items)}
    with_image = [item for item in drawn if item.has_image]
    prints = fingerprints[[index_of_row[item.row] for item in with_image]]
    for item, first in zip(with_image, group_copies(prints["hash"], prints["tiles"]).tolist(), strict=True):
        sets.unite(unit_of(with_image[first]), unit_of(item))


def _repetitions(drawn: Sequence[RawItem], sets: _Sets) -> dict[int, str]:
    """Row of a copy -> id of the item that stays in its place; items of one `group` stay together."""
    stays: dict[str, RawItem] = {}
    for item in sorted(drawn, key=lambda item: (not item.is_complete, item.row)):
        stays.setdefault(sets.find(unit_of(item)), item)
    kept = {item.row: stays[sets.find(unit_of(item))] for item in drawn}
    return {item.row: kept[item.row].id for item in drawn if unit_of(item) != unit_of(kept[item.row])}


def _draw(raw: RawData, key: str, config: DatasetConfig) -> str:
    return draw_split(
        key,
        seed=config.seed,
        val_fraction=config.val_fraction,
        test_fraction=0.0 if raw.draws_val else config.test_fraction,
    )
