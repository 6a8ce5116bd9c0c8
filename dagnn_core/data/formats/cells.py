"""Cells of tables: how long one may be, what counts as missing, and lists that are written as text."""

import ast
import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from dagnn_core.errors import InputError
from dagnn_core.text import clip, quote

Cell = str | tuple[str, ...]

MAX_CELL_CHARACTERS = 10_000_000
"""Of a cell that is read; a longer one is a fault of the table."""
MISSING = frozenset({"nan", "NaN", "<NA>"})
"""What pandas writes for a missing value: never an id, a text or a label."""

_CLOSING = {"[": "]", "(": ")", "{": "}"}
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_ENTRY = {
    opening: re.compile(rf"\s*(?:({_QUOTED})|([^\s,\"'{brackets}][^,{brackets}]*))\s*(,|$|(?=[\"']))", re.DOTALL)
    for opening, brackets in (("[", r"\[\]"), ("(", "()"), ("{", "{}"))
}
_NUMBER = re.compile(r"[-+]?[0-9.]+")
_NO_VALUE = MISSING | {"None", "null"}
_MAX_LISTED = 10  # columns in a message


def check_length(text: str, where: str) -> None:
    """Refuse a cell that is too long to be one.

    Raises:
        InputError: it has more than `MAX_CELL_CHARACTERS`.
    """
    if len(text) > MAX_CELL_CHARACTERS:
        raise too_long(where, len(text))


def too_long(where: str, characters: int) -> InputError:
    """What to say of a cell that is too long."""
    return InputError(
        f"{where}: a cell of {characters:,} characters, expected at most {MAX_CELL_CHARACTERS:,}",
        "correct the cell, or name another column",
    )


def check_columns(path: Path, columns: Mapping[str, str], present: Iterable[str]) -> None:
    """Check that a table has the columns wanted.

    Args:
        path: of the table.
        columns: what a column is called in the configuration -> name of the column.
        present: the names that the table has.

    Raises:
        InputError: a column is missing, or a name is there twice.
    """
    names = list(present)
    twice = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    if twice:
        raise InputError(
            f"{path} has the column {quote(twice[0])} twice, expected each name once",
            "rename one of them in its header",
        )
    for role, name in columns.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f", did you mean {quote(close[0])}?" if close else ""
            listed = ", ".join(clip(column) for column in islice(names, _MAX_LISTED)) or "none"
            more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
            raise InputError(f"{path} has no column {name!r} ({role}){hint}", f"its columns: {listed}{more}")


def without_missing(column: Sequence[Cell]) -> tuple[list[Cell], int]:
    """The cells with empty texts for what pandas writes for a missing value, and how many cells had one."""
    count = 0
    cells: list[Cell] = []
    for cell in column:
        known: Cell
        if isinstance(cell, str):
            known = "" if cell.strip() in MISSING else cell
        elif MISSING.isdisjoint(cell):
            known = cell
        else:
            known = tuple("" if entry in MISSING else entry for entry in cell)
        count += known != cell
        cells.append(known)
    return cells, count


def read_lists(column: Sequence[Cell], *, allow_bare: bool) -> tuple[list[Cell], int]:
    """A column with lists for the texts that spell one, and how many texts did.

    `['boat', 'dog']`, `["boat", "dog"]`, `['boat' 'dog']` (NumPy), `('boat', 'dog')` and `{'boat', 'dog'}` are lists
    wherever they are. With `allow_bare`, brackets without quotes are lists where all texts of the column have them,
    such as `[boat, dog]` or `[1, 0]`.
    """
    texts = [cell.strip() for cell in column if isinstance(cell, str) and cell.strip()]
    if not any(_is_bracketed(text) for text in texts):
        return list(column), 0
    allow_bare = allow_bare and all(_is_bracketed(text) for text in texts)
    cells: list[Cell] = []
    count = 0
    for cell in column:
        entries = parse_list(cell, allow_bare=allow_bare) if isinstance(cell, str) else None
        cells.append(cell if entries is None else entries)
        count += entries is not None
    return cells, count


def parse_list(text: str, *, allow_bare: bool) -> tuple[str, ...] | None:
    """The entries of a list that is written as text, empty where they are missing; None where it is no list.

    Args:
        text: a cell.
        allow_bare: whether entries may be without quotes.
    """
    text = text.strip()
    if not _is_bracketed(text):
        return None
    pattern, inside = _ENTRY[text[0]], text[1:-1].rstrip().removesuffix(",").rstrip()
    entries: list[str] = []
    position, has_quotes, has_commas = 0, False, False
    while position < len(inside):
        match = pattern.match(inside, position)
        if match is None:
            return None
        quoted, bare, separator = match.groups()
        has_quotes |= quoted is not None
        has_commas |= separator == ","
        entry = _unquoted(quoted) if quoted is not None else bare.strip()
        if entry is None:
            return None
        entries.append("" if quoted is None and entry in _NO_VALUE else entry)
        position = match.end()
    if not (has_quotes or allow_bare or not entries):
        return None
    if len(entries) == 1 and not has_quotes and not has_commas:
        words = entries[0].split()
        if all(_NUMBER.fullmatch(word) for word in words):  # as NumPy writes an array of numbers
            entries = words
    return tuple(entries)


def _is_bracketed(text: str) -> bool:
    return len(text) > 1 and _CLOSING.get(text[0]) == text[-1]


def _unquoted(literal: str) -> str | None:
    """The text that a literal of Python or JSON stands for; None where it is none."""
    if "\\" not in literal:
        return literal[1:-1]
    try:
        value = json.loads(literal) if literal[0] == '"' else ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        return None
    return str(value).encode(errors="replace").decode()
