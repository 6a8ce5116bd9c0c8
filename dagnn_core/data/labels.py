"""Labels of raw data: which count, in what order, and on which items."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from dagnn_core.data.formats.table import Cell
from dagnn_core.data.raw import RawItem
from dagnn_core.errors import InputError


class LabelChoice(NamedTuple):
    """The labels of a data set."""

    names: tuple[str, ...]
    """Columns of the label matrix."""
    dropped: dict[str, int]
    """Label that was dropped -> number of training items that have it."""


def split_labels(cells: Iterable[Cell], separator: str, allowed: Set[str]) -> tuple[str, ...]:
    """Labels of one item: all values in its cells, each once, in their order.

    Args:
        cells: its label cells.
        separator: splits a text into labels; empty: a text is one label. Lists are taken as they are.
        allowed: the labels that count; empty: all.
    """
    found: dict[str, None] = {}
    for cell in cells:
        parts = (cell.split(separator) if separator else [cell]) if isinstance(cell, str) else cell
        found |= dict.fromkeys(part.strip() for part in parts)
    # interned: a label of many items is one text in memory
    return tuple(sys.intern(label) for label in found if label and (not allowed or label in allowed))


def read_label_names(path: Path) -> tuple[str, ...]:
    """Read the allowed labels: a JSON list, JSON `{"labels": [{"name": ...}, ...]}`, or a text file with one a line.

    Raises:
        InputError: the file is missing or of another form, or a label is there twice.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a file with the label names")
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = _json_names(json.loads(text)) if path.suffix == ".json" else text.splitlines()
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold label names ({error!r}), expected a JSON list of texts, "
            '{"labels": [{"name": ...}]}, or a .txt file with one label a line'
        ) from error
    names = [name.strip() for name in names if name.strip()]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: the label {repeated[0]!r} is there twice, expected each label once")
    return tuple(names)


def choose_labels(items: Sequence[RawItem], order: Sequence[str], min_label_count: int) -> LabelChoice:
    """Drop rare labels and check that the rest can be learned.

    Labels on fewer than `min_label_count` training items are dropped, and so are labels of `order` that no item has.

    Args:
        items: all usable items, with their splits.
        order: all labels in the order wanted; empty: those found, sorted.
        min_label_count: 1 drops no label that an item has.

    Raises:
        InputError: a label of val or test is on no training item, or fewer than two labels are left.
    """
    in_training = Counter(label for item in items if item.split == "train" for label in item.labels)
    on_items = Counter(label for item in items for label in item.labels)
    candidates = order or sorted(on_items)
    dropped = {
        name: in_training[name]
        for name in candidates
        if in_training[name] < min_label_count and (min_label_count > 1 or not on_items[name])
    }
    names = tuple(name for name in candidates if name not in dropped)
    for name in names:
        if not in_training[name]:
            first = next(item for item in items if name in item.labels)
            raise InputError(
                f"the label {name!r} is on {on_items[name]} items of val and test (first: id {first.id!r}) but on no "
                "training item, so it cannot be learned",
                "set dataset.min_label_count to 2 or more, which drops rare labels, or correct the splits",
            )
    if len(names) < 2:
        raise InputError(
            f"{len(names)} labels are left ({', '.join(names) or 'none'}), expected at least two",
            "check the label columns and their separator, and dataset.min_label_count",
        )
    return LabelChoice(names, dropped)


def _json_names(value: Any) -> list[str]:
    entries = [entry["name"] for entry in value["labels"]] if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise TypeError("not a list of texts")
    return entries
