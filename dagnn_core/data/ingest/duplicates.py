"""Identical items, found by hash: copies inside a group of items, such as a split, and across groups."""

# N items

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_EXAMPLES = 3


class Copies(NamedTuple):
    """Which of N items are copies of others."""

    within: NDArray[np.bool_]
    """An earlier item of the same group is the same, [N]."""
    across: NDArray[np.bool_]
    """An item of another group is the same, [N]."""
    examples_within: Sequence[tuple[int, int]]
    """The first few items of `within`, each with one that it copies."""
    examples_across: Sequence[tuple[int, int]]
    """The first few pairs of `across`, each item in one of them only."""


def content_key(content: bytes) -> int:
    """64 bits of a hash: among a million different contents, two share theirs with a probability of 3e-8."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def find_copies(keys: NDArray[np.uint64], groups: NDArray[np.int64]) -> Copies:
    """Find items with equal keys.

    Args:
        keys: of the contents, [N].
        groups: numbers from 0, such as of splits, [N].
    """
    if not len(keys):
        return Copies(np.zeros(0, bool), np.zeros(0, bool), (), ())
    _, contents = np.unique(keys, return_inverse=True)
    num_groups = int(groups.max()) + 1
    placed, first = np.unique(contents * num_groups + groups, return_index=True)
    within = np.ones(len(keys), bool)
    within[first] = False
    across = np.bincount(placed // num_groups)[contents] > 1

    def partner(row: int, others: NDArray[np.bool_]) -> tuple[int, int]:
        return row, int(np.flatnonzero((contents == contents[row]) & others)[0])

    _, first_of_content = np.unique(np.where(across, contents, -1), return_index=True)
    leaders = sorted(row for row in first_of_content.tolist() if across[row])[:NUM_EXAMPLES]
    return Copies(
        within,
        across,
        [partner(row, groups == groups[row]) for row in np.flatnonzero(within)[:NUM_EXAMPLES].tolist()],
        [partner(row, groups != groups[row]) for row in leaders],
    )
