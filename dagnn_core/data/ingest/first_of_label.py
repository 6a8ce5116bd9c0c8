"""Which items keep every label in the data when most of them are taken out of it."""

from collections.abc import Sequence

from dagnn_core.data.raw import RawItem


def first_of_each_label(training: Sequence[RawItem]) -> list[RawItem]:
    """The first item of every label that none chosen before has, the rarest label first.

    Args:
        training: items in the order of the draw.
    """
    with_label: dict[str, list[RawItem]] = {}
    for item in training:
        for name in item.labels:
            with_label.setdefault(name, []).append(item)
    found: list[RawItem] = []
    covered: set[str] = set()
    for name in sorted(with_label, key=lambda name: (len(with_label[name]), name)):
        if name not in covered:
            found.append(with_label[name][0])
            covered |= set(found[-1].labels)
    return found
