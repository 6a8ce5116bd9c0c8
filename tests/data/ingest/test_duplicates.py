"""Copies found by hash are those that a comparison of all pairs finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dagnn_core.data.ingest.duplicates import NUM_EXAMPLES, content_key, find_copies


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=20))
def test_all_pairs_are_the_oracle(items: list[tuple[int, int]]) -> None:
    keys = np.array([key for key, _ in items], np.uint64)
    groups = np.array([group for _, group in items], np.int64)
    copies = find_copies(keys, groups)
    assert copies.within.tolist() == [item in items[:row] for row, item in enumerate(items)]
    assert copies.across.tolist() == [
        any(key == other and group != place for other, place in items) for key, group in items
    ]
    for examples, same_group in ((copies.examples_within, True), (copies.examples_across, False)):
        assert len(examples) <= NUM_EXAMPLES
        assert all(keys[a] == keys[b] and (groups[a] == groups[b]) == same_group and a != b for a, b in examples)
    assert bool(copies.examples_within) == copies.within.any()
    shown = [items[one][0] for one, _ in copies.examples_across]
    assert len(set(shown)) == len(shown) == min(NUM_EXAMPLES, len(set(keys[copies.across].tolist())))


def test_keys_are_64_bits_of_the_content() -> None:
    keys = {content_key(str(number).encode()) for number in range(1000)}
    assert len(keys) == 1000 and content_key(b"7") in keys
    assert 2**63 < max(keys) < 2**64
