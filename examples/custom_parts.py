"""An image encoder, a text encoder and a loss of your own, to copy from.

`params.yaml` names each by its import path, `package.module:name`:

    features:
      image: examples.custom_parts:Thumbnail
      text: examples.custom_parts:CharacterTrigrams
    model:
      custom_loss: examples.custom_parts:margin_loss
      custom_loss_weight: 0.5

The module must be importable where the steps run: in the current folder, in a folder on PYTHONPATH, or installed.
`dagnn register` stores the module with the model, so that the model can be served elsewhere.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.images import decode
from dagnn_core.features.encoders.backbone import encode_images
from dagnn_core.features.encoders.state import read_state, write_state
from dagnn_core.features.encoders.words import LabelledTexts


class Thumbnail:
    """An image as its own small copy: side x side colours. An encoder that is not fitted, like a pretrained network."""

    KIND = f"{__name__}:Thumbnail"
    SIDE = 12

    kind = KIND
    dim = 3 * SIDE * SIDE

    @classmethod
    def open(cls, config: FeaturesConfig) -> "Thumbnail":
        """Make the encoder that extraction uses; a network would be loaded from `config.image_model` here."""
        return cls()

    @classmethod
    def load(cls, directory: Path) -> "Thumbnail":
        """Read what `save` wrote."""
        return cls()

    def save(self, directory: Path) -> None:
        """Write what `load` needs; the weights of a network go here, too, never as a pickle."""
        write_state(directory, {"kind": self.kind, "dim": self.dim})

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that decides the vectors: finished ones are kept under this key, so change it when they change."""
        return {"kind": self.kind, "version": 1}

    def to(self, device: torch.device) -> None:
        """Move the network; there is none."""

    @property
    def preprocess(self) -> Callable[[bytes], NDArray[np.uint8]]:
        """What worker processes run on each image: a function of the module, which can be sent to them."""
        return shrink

    def embed(self, pixels: Tensor) -> Tensor:
        """Vectors of a batch, from -1 to 1: [B, SIDE, SIDE, 3] -> [B, dim]."""
        return pixels.flatten(1).float() / 127.5 - 1

    def encode(self, images: Sequence[bytes], /) -> NDArray[np.float32]:
        """Encode images: B images -> [B, dim]."""
        return encode_images(self, images)


def shrink(image: bytes) -> NDArray[np.uint8]:
    """Decode an image and shrink it: [SIDE, SIDE, 3].

    Raises:
        InputError: it cannot be decoded.
    """
    side = Thumbnail.SIDE
    return np.asarray(decode(image, at_least=side).resize((side, side)))


class CharacterTrigrams:
    """A text as its trigrams of characters, each hashed to a dimension. An encoder that is fitted on training texts."""

    KIND = f"{__name__}:CharacterTrigrams"

    kind = KIND

    def __init__(self, dim: int) -> None:
        self.dim = dim

    @classmethod
    def fit_texts(cls, train: LabelledTexts, val: LabelledTexts, config: FeaturesConfig) -> "CharacterTrigrams":
        """Choose the number of dimensions: the number of different trigrams, at most `features.max_words`."""
        return cls(min(len({trigram for text in train.texts for trigram in _trigrams(text)}), config.max_words))

    @classmethod
    def load(cls, directory: Path) -> "CharacterTrigrams":
        """Read what `save` wrote."""
        return cls(int(read_state(directory)["dim"]))

    def save(self, directory: Path) -> None:
        """Write what `load` needs."""
        write_state(directory, {"kind": self.kind, "dim": self.dim})

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Encode texts: B texts -> [B, dim], each of length 1."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for trigram in _trigrams(text):
                vector[zlib.crc32(trigram.encode()) % self.dim] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1)
        return vectors


def _trigrams(text: str) -> list[str]:
    padded = f" {text.lower()} "
    return [padded[start : start + 3] for start in range(len(padded) - 2)]


def margin_loss(image: Tensor, text: Tensor, image_labels: Tensor, text_labels: Tensor) -> Tensor:
    """Mean hinge of 0.2: an image is closer to each text that shares a label with it than to each text that does not.

    Shape:
        image [B_I, d], text [B_T, d], image_labels [B_I, C], text_labels [B_T, C] -> scalar.
    """
    cosines = functional.normalize(image, dim=1) @ functional.normalize(text, dim=1).T
    shares = image_labels @ text_labels.T > 0
    relevant = cosines.masked_fill(~shares, 1).amin(dim=1)  # the least similar text that should be near
    irrelevant = cosines.masked_fill(shares, -1).amax(dim=1)  # the most similar text that should be far
    return functional.relu(0.2 + irrelevant - relevant).mean()
