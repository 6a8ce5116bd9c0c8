"""Near-identical images: the same image, recompressed or resized."""

# N images

from collections.abc import Iterator
from typing import Any, NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dagnn_core.data.ingest.duplicates import NUM_EXAMPLES, Copies

HASH_BITS = 64
TILES = 8  # on a side
MAX_TILE_DIFFERENCE = 10  # of 255; recompressed or halved images differ by up to 7, other products from 11 on


class Fingerprint(NamedTuple):
    """What an image is recognised by."""

    hash: int
    """DCT hash of its grey values ("pHash"), HASH_BITS bits."""
    tiles: NDArray[np.uint8]
    """Mean colours of TILES x TILES tiles, flat: the hash sees neither colour nor what is plain."""


def fingerprint(image: Image.Image) -> Fingerprint:
    """Take the fingerprint of an RGB image."""
    bits = np.packbits(imagehash.phash(image).hash.ravel())
    tiles = np.asarray(image.resize((TILES, TILES), Image.Resampling.BOX), np.uint8)
    return Fingerprint(int.from_bytes(bits.tobytes(), "big"), tiles.ravel())


def near_pairs(hashes: NDArray[np.uint64], max_distance: int) -> Iterator[NDArray[np.int64]]:
    """All pairs of hashes that differ in at most so many bits, as arrays [P, 2] with the lower number first.

    Of `max_distance` + 1 bands of bits, such a pair has at least one in common (pigeonhole), so only hashes with an
    equal band are compared; memory stays at a few numbers for each hash. A pair comes once for each common band.
    """
    bounds = np.linspace(0, HASH_BITS, max_distance + 2).astype(int)
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        band = band[order]
        left = np.arange(len(order))
        for offset in range(1, len(order)):
            left = left[left + offset < len(order)]
            left = left[band[left] == band[left + offset]]
            if not len(left):
                break
            one, other = order[left], order[left + offset]
            close = np.bitwise_count(hashes[one] ^ hashes[other]) <= max_distance
            if close.any():
                yield np.stack([np.minimum(one, other)[close], np.maximum(one, other)[close]], axis=1)


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
        for part in np.array_split(pairs, -(-len(pairs) // 100_000)):
            difference = np.abs(tiles[part[:, 0]].astype(np.int16) - tiles[part[:, 1]])
            near = (difference.max(axis=1) <= MAX_TILE_DIFFERENCE) & (keys[part[:, 0]] != keys[part[:, 1]])
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


def _first_pairs(rows: NDArray[Any], partners: NDArray[Any]) -> list[tuple[int, int]]:
    return [(row, int(partners[row])) for row in rows[:NUM_EXAMPLES].tolist()]
