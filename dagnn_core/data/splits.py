"""Splits: drawn by seed, or read beside the data."""

import hashlib
from pathlib import Path

from dagnn_core.data.formats.table import Table, read_table
from dagnn_core.errors import InputError
from dagnn_core.text import quote

SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Word -> split, as the library `datasets` knows them; case does not matter."""
KNOWN_SPLITS = "train, validation or test (or training, valid, val, dev, testing, eval, evaluation)"


def hash_point(item_id: str, *, seed: int, purpose: str = "") -> float:
    """Hash of (seed, id), another one for each purpose, as a point in [0, 1)."""
    digest = hashlib.blake2b(f"{seed}\0{item_id}".encode(), digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


def draw_split(item_id: str, *, seed: int, val_fraction: float, test_fraction: float) -> str:
    """Split of an item from seed and id alone, so it stays what it is when other items come or go.

    The hash of (seed, id) is a point u in [0, 1): test below `test_fraction`, then val, then train.
    """
    point = hash_point(item_id, seed=seed)
    if point < test_fraction:
        return "test"
    return "val" if point < test_fraction + val_fraction else "train"


def split_column(table: Table, column: str) -> list[str]:
    """The splits in a column; empty where a cell is.

    Raises:
        InputError: a cell holds anything else than a word of SPLIT_OF.
    """
    words = [text.strip() for text in table.texts(column)]
    for row, word in enumerate(words, start=1):
        if word and word.casefold() not in SPLIT_OF:
            raise InputError(f"{table.path}, {table.place(row)}: unknown split {quote(word)}, expected {KNOWN_SPLITS}")
    return [SPLIT_OF.get(word.casefold(), "") for word in words]


def read_splits(path: Path) -> dict[str, str]:
    """Read a table with the columns `id` and `split`, as id -> split.

    Raises:
        InputError: the table cannot be read, holds an unknown or empty split, or an id twice.
    """
    table = read_table(path, {"id column": "id", "split column": "split"})
    split_of: dict[str, str] = {}
    ids = [item_id.strip() for item_id in table.texts("id")]
    for row, (item_id, split) in enumerate(zip(ids, split_column(table, "split"), strict=True), start=1):
        if not split:
            raise InputError(f"{path}, {table.place(row)}: no split, expected {KNOWN_SPLITS}")
        if item_id in split_of:
            raise InputError(
                f"{path}, {table.place(row)}: the id {quote(item_id)} is there twice, expected each id once"
            )
        split_of[item_id] = split
    return split_of
