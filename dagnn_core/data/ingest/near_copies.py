"""Near-identical images: the same image, recompressed or resized."""

# N images

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dagnn_core.config.dataset import NEAR_DISTANCE
from dagnn_core.data.ingest.duplicates import NUM_EXAMPLES, Copies, content_key

HASH_BITS = 64
TILES = 8  # on a side
MAX_TILE_DIFFERENCE = 10  # of 255; recompressed or halved images differ by up to 7, other products from 11 on
DECODED_PIXELS = 128  # JPEG decodes to a fraction of its size that is at least this: many times faster
MIN_EDGES = 100_000  # pairs that are collected before they are joined: joining costs a pass over all images


class Fingerprint(NamedTuple):
    """What an image is recognised by."""

    hash: int
    """DCT hash of its grey values ("pHash"), HASH_BITS bits."""
    tiles: NDArray[np.uint8]
    """Mean colours of TILES x TILES tiles, flat: the hash sees neither colour nor what is plain."""


def fingerprint(image: Image.Image) -> Fingerprint:
    """Take the fingerprint of an RGB image, of which each side has DECODED_PIXELS where it had as many."""
    bits = np.packbits(imagehash.phash(image).hash.ravel())
    tiles = np.asarray(image.resize((TILES, TILES), Image.Resampling.BOX), np.uint8)
    return Fingerprint(int.from_bytes(bits.tobytes(), "big"), tiles.ravel())


def near_pairs(
    hashes: NDArray[np.uint64], max_distance: int, groups: NDArray[np.int64] | None = None
) -> Iterator[NDArray[np.int64]]:
    """All pairs of hashes that differ in at most so many bits, as arrays [P, 2] with the lower number first.

    Of `max_distance` + 2 bands of bits, such a pair has at least two in common (pigeonhole), so for each two bands the
    hashes are sorted by them, and only those with equal ones are compared: with `max_distance` 4, 21 bits that part a
    million hashes into buckets of one or two. Memory stays at a few numbers for each hash. A pair comes once for each
    two bands in common.

    Args:
        hashes: perceptual ones, [N].
        max_distance: bits in which they may differ.
        groups: pairs inside one of these are left out, [N]. The caller may join groups in place between two pairs.
    """
    bounds = np.linspace(0, HASH_BITS, max_distance + 3).astype(int).tolist()
    bands = [((1 << (high - low)) - 1) << low for low, high in pairwise(bounds)]
    groups = np.arange(len(hashes)) if groups is None else groups
    for one_band, other_band in combinations(bands, 2):
        band = hashes & np.uint64(one_band | other_band)
        order = np.lexsort((groups, band))
        band, group = band[order], groups[order]
        ends = np.append(np.flatnonzero((band[1:] != band[:-1]) | (group[1:] != group[:-1])) + 1, len(order))
        left = np.arange(len(order))
        right = ends[np.searchsorted(ends, left, side="right")]  # the next one that is in another group
        while True:
            inside = right < len(order)
            left, right = left[inside], right[inside]
            inside = band[left] == band[right]
            left, right = left[inside], right[inside]
            if not len(left):
                break
            one, other = order[left], order[right]
            close = np.bitwise_count(hashes[one] ^ hashes[other]) <= max_distance
            if close.any():
                yield np.stack([np.minimum(one, other)[close], np.maximum(one, other)[close]], axis=1)
            right = right + 1


def find_near_copies(
    keys: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    tiles: NDArray[np.uint8],
    groups: NDArray[np.int64],
    *,
    max_distance: int,
) -> Copies:
    """Find images that are not identical, but have near hashes and tiles of nearly the same colours.

    Args:
        keys: hashes of the contents, [N].
        hashes: perceptual ones, [N].
        tiles: of the images, [N, T].
        groups: numbers from 0, such as of splits, [N].
        max_distance: bits in which hashes may differ.
    """
    nobody = len(hashes)
    within, across = (np.full(nobody, nobody) for _ in range(2))  # the first image that is near
    for pairs in near_pairs(hashes, max_distance):
        for part in _parts(pairs):
            near = _have_near_tiles(tiles, part) & (keys[part[:, 0]] != keys[part[:, 1]])
            one, other = part[near].T
            same = groups[one] == groups[other]
            np.minimum.at(within, other[same], one[same])
            np.minimum.at(across, other[~same], one[~same])
            np.minimum.at(across, one[~same], other[~same])
    rows = np.arange(nobody)
    return Copies(
        within < nobody,
        across < nobody,
        _first_pairs(rows[within < nobody], within),
        _first_pairs(rows[(across < nobody) & (rows < across)], across),
    )


def group_copies(
    hashes: NDArray[np.uint64], tiles: NDArray[np.uint8], *, max_distance: int = NEAR_DISTANCE
) -> NDArray[np.int64]:
    """Group images that are identical or near-identical: no two groups have copies of each other.

    Copies of a copy are in its group, so that two images of a group may be less near than `max_distance`. Images with
    equal fingerprints, identical ones among them, are taken as one, and pairs inside a group are not compared again:
    many versions of one image cost no more than others.

    Args:
        hashes: perceptual ones, [N].
        tiles: of the images, [N, T].
        max_distance: bits in which hashes of near-identical images may differ.

    Returns:
        The number of the first image in the group of each, [N].
    """
    looks = np.fromiter(
        (content_key(bits.tobytes() + row.tobytes()) for bits, row in zip(hashes, tiles, strict=True)), np.uint64
    )
    _, first, look = np.unique(looks, return_index=True, return_inverse=True)
    hashes, tiles = hashes[first], tiles[first]
    groups = np.arange(len(first))
    edges: list[NDArray[np.int64]] = []
    for pairs in near_pairs(hashes, max_distance, groups):
        for part in _parts(pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]):
            edges.append(part[_have_near_tiles(tiles, part)])
        if sum(map(len, edges)) >= max(MIN_EDGES, len(first)):
            groups[:], edges = _joined(groups, edges), []
    groups = _joined(groups, edges)[look]
    first_of = np.full(len(looks), len(looks))
    np.minimum.at(first_of, groups, np.arange(len(looks)))
    return first_of[groups]


def _joined(groups: NDArray[np.int64], edges: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The groups when images with an edge between them are in one."""
    if not edges:
        return groups
    one, other = groups[np.concatenate(edges)].T
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(groups), len(groups)))
    joined: NDArray[np.int64] = connected_components(graph, directed=False)[1][groups]
    return joined


def _parts(pairs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The pairs in parts whose tiles fit into memory."""
    return np.array_split(pairs, -(-len(pairs) // 100_000)) if len(pairs) else []


def _have_near_tiles(tiles: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    difference = np.abs(tiles[pairs[:, 0]].astype(np.int16) - tiles[pairs[:, 1]])
    near: NDArray[np.bool_] = difference.max(axis=1) <= MAX_TILE_DIFFERENCE
    return near


def _first_pairs(rows: NDArray[Any], partners: NDArray[Any]) -> list[tuple[int, int]]:
    return [(row, int(partners[row])) for row in rows[:NUM_EXAMPLES].tolist()]
