"""Labels of raw data: which count, in what order, and on which items."""

import json
import logging
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from dagnn_core.data.formats.cells import MISSING, Cell, read_lists
from dagnn_core.data.formats.table import Table
from dagnn_core.data.raw import RawItem
from dagnn_core.errors import InputError
from dagnn_core.text import clip, name_first, quote

log = logging.getLogger(__name__)

HAS_LABEL = frozenset({"1", "1.0", "true", "t", "yes", "y"})
LACKS_LABEL = frozenset({"0", "0.0", "false", "f", "no", "n"})
"""Indicators in any case: what a cell says of the label that its column, or its place in a list, is named after."""

_SEPARATORS = "|;,"
_BRACKETS = ("[]", "()", "{}")
_INDICATOR_REMEDY = (
    "name one column of 0 and 1 for each label (their names are the labels), or a column that holds the labels' names"
)


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
        found |= dict.fromkeys((cell.split(separator) if separator else [cell]) if isinstance(cell, str) else cell)
    return label_texts(found, allowed)


def label_texts(texts: Iterable[str], allowed: Set[str] = frozenset()) -> tuple[str, ...]:
    """Texts as labels: each once, without those that are empty or stand for a missing value.

    Args:
        texts: of one item.
        allowed: the labels that count; empty: all.
    """
    found = dict.fromkeys(_normal(text) for text in texts)
    # interned: a label of many items is one text in memory
    labels = (sys.intern(label) for label in found if label and label not in MISSING)
    return tuple(label for label in labels if not allowed or label in allowed)


def read_label_columns(table: Table, columns: Sequence[str], label_format: str) -> list[list[Cell]]:
    """Label columns as cells with labels: indicator columns and lists that are written as text are read as such.

    Args:
        table: has the columns.
        columns: their names.
        label_format: see `dataset.folder.label_format`.

    Raises:
        InputError: a single column holds indicators, or a column that shall hold them holds something else.
    """
    if label_format == "values":
        return [table.columns[name] for name in columns]
    if label_format == "indicator":
        return [read_indicators(table, name) for name in columns]
    found = [name for name in columns if _holds_indicators(table.columns[name])]
    if found and len(columns) == 1:
        values = sorted({cell for cell in table.columns[found[0]] if isinstance(cell, str) and cell.strip()})
        raise InputError(
            f"{table.path}: the label column {found[0]!r} holds only {', '.join(map(repr, values))}, which name "
            "no label",
            _INDICATOR_REMEDY,
        )
    if found:
        log.info(
            "%s: %d label columns hold 0 and 1 and are read as indicators of the labels %s",
            *(table.path, len(found), name_first(found)),
        )
    return [read_indicators(table, name) if name in found else read_list_column(table, name) for name in columns]


def read_indicators(table: Table, column: str) -> list[Cell]:
    """A column of 0 and 1 as cells with the column's name, or without a label.

    Raises:
        InputError: a cell holds something else.
    """
    cells: list[Cell] = []
    for row, cell in enumerate(table.columns[column], start=1):
        text = cell.strip().casefold() if isinstance(cell, str) else None
        if text is None or (text and text not in HAS_LABEL | LACKS_LABEL):
            raise InputError(
                f"{table.path}, {table.place(row)}: {quote(cell)} in the indicator column {column!r}, expected 1, 0, "
                "true, false or nothing"
            )
        cells.append((column,) if text in HAS_LABEL else ())
    return cells


def read_list_column(table: Table, column: str, *, allow_bare: bool = True) -> list[Cell]:
    """A column whose texts are read as lists where they spell some, which is said.

    Args:
        table: has the column.
        column: its name.
        allow_bare: whether brackets without quotes make a list, where all texts have them.
    """
    cells, count = read_lists(table.columns[column], allow_bare=allow_bare)
    if count:
        log.info("%s: %d cells of the column %r are lists written as text: read as lists", table.path, count, column)
    return cells


def _holds_indicators(column: Sequence[Cell]) -> bool:
    values = {cell.strip().casefold() if isinstance(cell, str) else "a list" for cell in set(column)} - {""}
    return bool(values) and values <= HAS_LABEL | LACKS_LABEL


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
    names = [_normal(name) for name in names if name.strip()]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: the label {repeated[0]!r} is there twice, expected each label once")
    return tuple(names)


def same_but_for_case(counts: Mapping[str, int]) -> list[list[str]]:
    """Groups of labels that differ in case alone, the most frequent one first.

    Args:
        counts: label -> number of items.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        groups[name.casefold()].append(name)
    return [same for same in groups.values() if len(same) > 1]


def fold_case(items: Sequence[RawItem], order: Sequence[str]) -> list[RawItem]:
    """The items with one spelling for labels that differ in case alone: that in `order`, or else the most frequent.

    Args:
        items: all usable items.
        order: all labels in the order wanted; empty: no spelling is preferred.
    """
    counts = Counter(label for item in items for label in item.labels)
    spelling: dict[str, str] = {}
    for name in (*order, *sorted(counts, key=lambda name: (-counts[name], name))):
        spelling.setdefault(name.casefold(), name)
    return [
        item._replace(labels=tuple(dict.fromkeys(spelling[label.casefold()] for label in item.labels)))
        for item in items
    ]


def choose_labels(items: Sequence[RawItem], order: Sequence[str], min_label_count: int) -> LabelChoice:
    """Drop rare labels and check that the rest can be learned.

    Labels on fewer than `min_label_count` training items are dropped, and so are labels of `order` that no item has.

    Args:
        items: all usable items, with their splits.
        order: all labels in the order wanted; empty: those found, sorted.
        min_label_count: 1 drops no label that an item has.

    Raises:
        InputError: the labels are only 0 and 1, or true and false; a label of val or test is on no training item; or
            fewer than two labels are left.
    """
    in_training = Counter(label for item in items if item.split == "train" for label in item.labels)
    on_items = Counter(label for item in items for label in item.labels)
    if on_items and {name.casefold() for name in on_items} <= HAS_LABEL | LACKS_LABEL | {"-1", "-1.0"}:
        raise InputError(
            f"the labels are only {', '.join(map(repr, sorted(on_items)))}, which name nothing that items share",
            f"{_INDICATOR_REMEDY}; for lists of 0 and 1, set label_names",
        )
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
                f"the label {quote(name)} is on {on_items[name]} items of val and test (first: id {quote(first.id)}) "
                "but on no training item, so it cannot be learned",
                f"{_unsplit_hint(on_items, name)}set dataset.min_label_count to 2 or more, which drops rare labels, or "
                "correct the splits",
            )
    if len(names) < 2:
        raise InputError(
            f"{len(names)} labels are left ({', '.join(map(clip, names)) or 'none'}), expected at least two",
            f"{_unsplit_hint(on_items)}check the label columns and their separator, and dataset.min_label_count",
        )
    if hint := _unsplit_hint(on_items):
        log.warning("%s", hint.removesuffix("; else "))
    alike = same_but_for_case({name: on_items[name] for name in names})
    if alike:
        log.warning(
            "%d labels differ from another in case alone (%s) and count as labels of their own: to make them one, set "
            "dataset.label_case to fold",
            *(sum(map(len, alike)) - len(alike), name_first([" and ".join(map(quote, same)) for same in alike])),
        )
    return LabelChoice(names, dropped)


def _normal(label: str) -> str:
    """A label without space around it, in the one Unicode form that makes equal what looks equal."""
    return unicodedata.normalize("NFC", label.strip())


def _unsplit_hint(counts: Mapping[str, int], rare: str = "") -> str:
    """The remedy where labels look like several that were not split, before another one; empty where they do not.

    Args:
        counts: label -> number of items.
        rare: a label that looks so is enough; empty: many must.
    """
    bracketed = [name for name in counts if any(name[0] == pair[0] or name[-1] == pair[1] for pair in _BRACKETS)]
    if rare in bracketed or 2 * len(bracketed) > len(counts):
        such = quote(rare if rare in bracketed else bracketed[0])
        return (
            f"{len(bracketed)} of {len(counts)} labels have brackets, such as {such}: if they are lists, write every "
            'cell as ["a", "b"], which label_format auto reads; else '
        )
    for separator in _SEPARATORS:
        whole = [name for name in counts if separator in name]
        if separator in rare or (4 * len(whole) > len(counts) and _share_parts(whole, separator)):
            such = quote(rare if separator in rare else whole[0])
            return (
                f"{len(whole)} of {len(counts)} labels contain {separator!r}, such as {such}: if it separates labels, "
                f"set label_separator to {separator!r}; else "
            )
    return ""


def _share_parts(names: Sequence[str], separator: str) -> bool:
    """Whether one part is in several of the labels, as where they were several labels."""
    parts = Counter(part for name in names for part in {part.strip() for part in name.split(separator)})
    return any(count > 1 for count in parts.values())


def _json_names(value: Any) -> list[str]:
    entries = [entry["name"] for entry in value["labels"]] if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise TypeError("not a list of texts")
    return entries
