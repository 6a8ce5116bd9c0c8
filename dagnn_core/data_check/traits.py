"""What the checks need to know of every image, taken in one pass."""

# N items

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dagnn_core.data.dataset import Dataset
from dagnn_core.data.images import decoded, map_in_order, read_header
from dagnn_core.data.ingest.duplicates import content_key
from dagnn_core.data.ingest.near_copies import DECODED_PIXELS, TILES, Fingerprint, fingerprint
from dagnn_core.errors import InputError
from dagnn_core.progress import track


class _Look(NamedTuple):
    fingerprint: Fingerprint
    brightness: float
    num_pixels: int


@dataclass(frozen=True, slots=True)
class ImageTraits:
    """Traits of the images of a data set, in row order."""

    has_encoded_image: NDArray[np.bool_]
    """Which items have an encoded image, [N]."""
    decodes: NDArray[np.bool_]
    """Which of these decode; of others, all but the key is 0."""
    keys: NDArray[np.uint64]
    """Hashes of the encoded images, [N]."""
    hashes: NDArray[np.uint64]
    """Perceptual hashes, [N]."""
    tiles: NDArray[np.uint8]
    """Mean colours of the tiles, [N, T]."""
    brightness: NDArray[np.float64]
    """Mean grey value, 0 to 255, [N]."""
    num_pixels: NDArray[np.int64]
    """Width times height, [N]."""

    def followed_by(self, other: "ImageTraits") -> "ImageTraits":
        """Traits of both data sets, one after the other."""
        columns = {
            field.name: np.concatenate([getattr(self, field.name), getattr(other, field.name)])
            for field in fields(ImageTraits)
        }
        return ImageTraits(**columns)


def read_traits(dataset: Dataset, description: str) -> ImageTraits:
    """Decode every image, on threads.

    Args:
        dataset: any; without images, nothing is read.
        description: what the progress is called.
    """
    num_items = len(dataset)
    traits = ImageTraits(
        has_encoded_image=np.zeros(num_items, bool),
        decodes=np.zeros(num_items, bool),
        keys=np.zeros(num_items, np.uint64),
        hashes=np.zeros(num_items, np.uint64),
        tiles=np.zeros((num_items, TILES * TILES * 3), np.uint8),
        brightness=np.zeros(num_items),
        num_pixels=np.zeros(num_items, np.int64),
    )
    images = (image for batch in dataset.iterate_images() for image in batch)
    for row, trait in enumerate(track(map_in_order(_trait, images), description=description, total=num_items)):
        if trait is None:
            continue
        traits.has_encoded_image[row] = True
        traits.keys[row], look = trait
        if look is not None:
            traits.decodes[row] = True
            traits.hashes[row], traits.tiles[row] = look.fingerprint
            traits.brightness[row], traits.num_pixels[row] = look.brightness, look.num_pixels
    return traits


def _trait(encoded: bytes | None) -> tuple[int, _Look | None] | None:
    """Key of an image, and what decoding it gives; None where that fails."""
    if encoded is None:
        return None
    key = content_key(encoded)
    try:
        header = read_header(encoded)
        with decoded(encoded, DECODED_PIXELS) as image:
            brightness = float(np.asarray(image.convert("L")).mean())
            return key, _Look(fingerprint(image), brightness, header.width * header.height)
    except InputError:
        return key, None
