"""The order in which items are drawn so that every label stays in the data, however few are taken."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dagnn_core.data.raw import RawItem
from dagnn_core.data.splits import hash_point


class Drawn(NamedTuple):
    """Ids in the order of a draw."""

    ids: list[str]
    least: int
    """So many, from the first on, have every label."""


def draw_with_every_label(items: Iterable[RawItem], *, seed: int, purpose: str) -> Drawn:
    """Order items by a hash of (seed, id), but first those that are the first with one of their labels.

    Args:
        items: what is drawn from.
        seed: draws the order.
        purpose: what is drawn, so that draws do not depend on each other.
    """
    ordered = sorted(items, key=lambda item: hash_point(item.id, seed=seed, purpose=purpose))
    first = [item.id for item in _first_of_each_label(ordered)]
    chosen = set(first)
    return Drawn([*first, *(item.id for item in ordered if item.id not in chosen)], len(first))


def _first_of_each_label(items: Sequence[RawItem]) -> list[RawItem]:
    """The first item of every label that none chosen before has, the rarest label first."""
    with_label: dict[str, list[RawItem]] = {}
    for item in items:
        for name in item.labels:
            with_label.setdefault(name, []).append(item)
    found: list[RawItem] = []
    covered: set[str] = set()
    for name in sorted(with_label, key=lambda name: (len(with_label[name]), name)):
        if name not in covered:
            found.append(with_label[name][0])
            covered |= set(found[-1].labels)
    return found
