"""Near-identical images: the search is exact, and knows recompressed and resized images from recoloured ones."""

import io
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dagnn_core.data.ingest import near_copies
from dagnn_core.data.ingest.near_copies import (
    MAX_TILE_DIFFERENCE,
    find_near_copies,
    fingerprint,
    group_copies,
    near_pairs,
)

hashes_near_each_other = st.lists(
    st.tuples(st.sampled_from([0, 0xF0F0F0F0F0F0F0F0, 2**64 - 1]), st.sets(st.integers(0, 63), max_size=5)), max_size=14
)


def flipped(base: int, bits: set[int]) -> int:
    for bit in bits:
        base ^= 1 << bit
    return base


@settings(max_examples=60, deadline=None)
@given(hashes_near_each_other, st.integers(0, 10))
def test_pairs_are_those_of_the_comparison_of_all(drawn: list[tuple[int, set[int]]], distance: int) -> None:
    hashes = [flipped(base, bits) for base, bits in drawn]
    expected = {(a, b) for b in range(len(hashes)) for a in range(b) if (hashes[a] ^ hashes[b]).bit_count() <= distance}
    found = {(int(a), int(b)) for pairs in near_pairs(np.array(hashes, np.uint64), distance) for a, b in pairs}
    assert found == expected


def test_pairs_of_many_hashes() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    hashes[1000:2000] = hashes[:1000] ^ (np.uint64(1) << rng.integers(0, 64, 1000).astype(np.uint64))
    found = {(int(a), int(b)) for pairs in near_pairs(hashes, 4) for a, b in pairs}
    close = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= 4
    assert found == {(a, b) for a, b in np.argwhere(close).tolist() if a < b}
    assert len(found) >= 1000


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6))
def test_copies_are_those_of_the_comparison_of_all(seed: int, distance: int) -> None:
    rng = np.random.default_rng(seed)
    size = 12
    hashes = np.array(
        [flipped(0, set(rng.integers(0, 64, rng.integers(0, 5)).tolist())) for _ in range(size)], np.uint64
    )
    tiles = rng.choice([0, 10, 11], (size, 2)).astype(np.uint8)
    groups, keys = rng.integers(0, 3, size), rng.integers(0, 6, size).astype(np.uint64)
    copies = find_near_copies(keys, hashes, tiles, groups, max_distance=distance)

    def near(a: int, b: int) -> bool:
        difference = max(abs(int(x) - int(y)) for x, y in zip(tiles[a], tiles[b], strict=True))
        bits = int(hashes[a] ^ hashes[b]).bit_count()
        return bool(keys[a] != keys[b]) and bits <= distance and difference <= MAX_TILE_DIFFERENCE

    rows = range(size)
    assert copies.within.tolist() == [any(near(a, b) and groups[a] == groups[b] for a in range(b)) for b in rows]
    assert copies.across.tolist() == [any(near(a, b) and groups[a] != groups[b] for a in rows) for b in rows]
    assert all(near(a, b) and groups[a] == groups[b] for a, b in copies.examples_within)
    assert all(near(a, b) and groups[a] != groups[b] for a, b in copies.examples_across)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(1, 4))
def test_groups_are_the_connected_ones_of_the_comparison_of_all(seed: int, distance: int, min_edges: int) -> None:
    rng = np.random.default_rng(seed)
    size = 14
    hashes = np.array(
        [flipped(0, set(rng.integers(0, 64, rng.integers(0, 6)).tolist())) for _ in range(size)], np.uint64
    )
    tiles = rng.choice([0, 10, 11, 20], (size, 2)).astype(np.uint8)
    expected = list(range(size))
    for a, b in list(combinations(range(size), 2)) * size:
        difference = np.abs(tiles[a].astype(int) - tiles[b]).max()
        if int(hashes[a] ^ hashes[b]).bit_count() <= distance and difference <= MAX_TILE_DIFFERENCE:
            expected[a] = expected[b] = min(expected[a], expected[b])
    with pytest.MonkeyPatch.context() as patch:  # join in the middle, too
        patch.setattr(near_copies, "MIN_EDGES", min_edges)
        found = group_copies(hashes, tiles, max_distance=distance)
    assert found.tolist() == expected


def test_thousands_of_versions_of_one_image_are_grouped_in_seconds() -> None:
    rng = np.random.default_rng(0)
    hashes = np.where(np.arange(60_000) % 2, rng.integers(0, 2**64, 60_000, dtype=np.uint64), np.uint64(7))
    tiles = rng.integers(0, 256, (60_000, 192), dtype=np.uint8)
    tiles[::2] = 0  # blank ones
    tiles[:4000:2] += rng.integers(0, 9, (2000, 192), dtype=np.uint8)
    started = time.process_time()
    found = group_copies(hashes, tiles)
    assert time.process_time() - started < 15
    assert np.unique(found[::2]).tolist() == [0]
    assert found[1::2].tolist() == list(range(1, 60_000, 2))


def test_no_images_make_no_groups() -> None:
    assert group_copies(np.zeros(0, np.uint64), np.zeros((0, 192), np.uint8)).tolist() == []


def changed(image: Image.Image, how: str) -> Image.Image:
    match how:
        case "recompressed":
            stream = io.BytesIO()
            image.save(stream, format="JPEG", quality=40)
            return Image.open(stream).convert("RGB")
        case "half the size":
            return image.resize((48, 48))
        case "other colours":
            red, green, blue = image.split()
            return Image.merge("RGB", (blue, red, green))
        case _:
            return ImageOps.mirror(image)


@pytest.mark.parametrize(
    ("how", "is_near"),
    [("recompressed", True), ("half the size", True), ("other colours", False), ("mirrored", False)],
)
def test_what_is_nearly_the_same_image(scene, how: str, is_near: bool) -> None:
    prints = [fingerprint(scene(1)), fingerprint(changed(scene(1), how))]
    copies = find_near_copies(
        np.array([1, 2], np.uint64),
        np.array([found.hash for found in prints], np.uint64),
        np.array([found.tiles for found in prints]),
        np.array([0, 1]),
        max_distance=4,
    )
    assert copies.across.tolist() == [is_near, is_near]
    assert copies.examples_across == ([(0, 1)] if is_near else [])


def test_blank_images_of_other_colours_are_told_apart() -> None:
    """The hash of a plain image is 0 whatever its colour."""
    white, black = (fingerprint(Image.new("RGB", (64, 64), color)) for color in ("white", "black"))
    hashes, tiles = np.array([white.hash, black.hash], np.uint64), np.array([white.tiles, black.tiles])
    assert len(list(near_pairs(hashes, 4))) > 0
    assert not find_near_copies(hashes, hashes, tiles, np.array([0, 1]), max_distance=4).across.any()
