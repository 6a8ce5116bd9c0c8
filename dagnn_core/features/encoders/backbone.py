"""What a pretrained network offers to extraction: images become pixels in worker processes, pixels become vectors.

# B batch, D dimension of the vectors
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dagnn_core.data.images import map_in_order
from dagnn_core.errors import InputError

BATCH_IMAGES = 64


class Backbone(Protocol):
    """A pretrained network."""

    @property
    def kind(self) -> str:
        """Its name in the configuration: `features.image` or `features.text`."""

    @property
    def dim(self) -> int:
        """Dimension D of the vectors."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides the vectors, as JSON values (digest of weights, pooling ...); it keys caches."""

    def to(self, device: torch.device) -> None:
        """Move the network."""

    def save(self, directory: Path) -> None:
        """Write what `load_image_encoder` or `load_text_encoder` reads."""


class ImageBackbone(Backbone, Protocol):
    """A network that takes images."""

    @property
    def preprocess(self) -> Callable[[bytes], NDArray[Any]]:
        """Turns an encoded image into pixels; picklable without the network.

        Raises:
            InputError: when called with an image that cannot be decoded.
        """

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed a batch of what `preprocess` makes, on the network's device, without gradients: [B, ...] -> [B, D]."""

    def encode(self, images: Sequence[bytes], /) -> NDArray[np.float32]:
        """Encode images (JPEG, PNG ...): B images -> [B, D].

        Raises:
            InputError: an image cannot be decoded; the message has its number, from 1.
        """


class TextBackbone(Backbone, Protocol):
    """A network that takes texts."""

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Encode one batch of texts on the network's device: B texts -> [B, D]."""


def encode_images(backbone: ImageBackbone, images: Sequence[bytes]) -> NDArray[np.float32]:
    """`encode` of an image backbone: decode on threads, embed in batches.

    Shape:
        B images -> [B, D].

    Raises:
        InputError: an image cannot be decoded; the message has its number, from 1.
    """

    def prepare(numbered: tuple[int, bytes]) -> NDArray[Any]:
        number, image = numbered
        try:
            return backbone.preprocess(image)
        except InputError as error:
            raise InputError(f"image {number} {error}") from error

    vectors = np.zeros((len(images), backbone.dim), dtype=np.float32)
    for start in range(0, len(images), BATCH_IMAGES):
        rows = slice(start, start + BATCH_IMAGES)
        pixels = np.stack(list(map_in_order(prepare, enumerate(images[rows], start=start + 1))))
        vectors[rows] = backbone.embed(torch.from_numpy(pixels)).cpu().numpy()
    return vectors
