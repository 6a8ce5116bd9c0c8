"""The image encoder `classic`: descriptors of colour, shape and texture, standardised over the training images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagnn_core.arrays import read_array
from dagnn_core.data.images import map_in_order
from dagnn_core.data.vectors import save_array
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.descriptors import DIM, VERSION, describe
from dagnn_core.features.encoders.state import read_state, write_state

CLIP = 3.0  # standard deviations: bounds the weight of a value that is rare in training
MIN_DEVIATION = 1e-3  # for values that hardly vary in training, such as a colour that no image has
FIT_ROWS = 1024  # descriptors in memory while mean and deviation are summed


@dataclass(frozen=True, slots=True)
class ClassicEncoder:
    """Standardised descriptors: (x - mean) / deviation, clipped at `CLIP`."""

    mean: NDArray[np.float32]
    """Mean of each value over the training images, [dim]."""
    deviation: NDArray[np.float32]
    """Standard deviation of each value, [dim]."""

    @property
    def kind(self) -> str:
        """Name of the encoder in the configuration."""
        return "classic"

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return len(self.mean)

    @classmethod
    def fit(cls, descriptors: NDArray[np.float32], rows: NDArray[np.int64]) -> "ClassicEncoder":
        """Learn mean and deviation.

        Args:
            descriptors: of all images; may be memory-mapped, a few rows are read at a time.
            rows: the training images.

        Shape:
            descriptors [N, dim], rows [M].
        """
        blocks = [rows[start : start + FIT_ROWS] for start in range(0, len(rows), FIT_ROWS)]
        mean = sum(descriptors[block].sum(axis=0, dtype=np.float64) for block in blocks) / len(rows)
        variance = sum(((descriptors[block] - mean) ** 2).sum(axis=0) for block in blocks) / len(rows)
        deviation = np.maximum(np.sqrt(variance), MIN_DEVIATION)
        return cls(mean=np.asarray(mean, dtype=np.float32), deviation=deviation.astype(np.float32))

    @classmethod
    def load(cls, directory: Path) -> "ClassicEncoder":
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing or damaged, or of another version of the descriptors.
        """
        version = read_state(directory).get("version")
        if version != VERSION:
            raise ArtifactError(
                f"{directory}: image descriptors of version {version}, but this program makes version {VERSION}",
                "extract the features and train again, or use the program that trained this model",
            )
        return cls(mean=_load_vector(directory / "mean.npy"), deviation=_load_vector(directory / "deviation.npy"))

    def save(self, directory: Path) -> None:
        """Write the state into a directory."""
        write_state(directory, {"kind": self.kind, "dim": self.dim, "version": VERSION})
        save_array(directory / "mean.npy", self.mean)
        save_array(directory / "deviation.npy", self.deviation)

    def standardise(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise descriptors.

        Shape:
            [B, dim] -> [B, dim].
        """
        vectors: NDArray[np.float32] = np.clip((descriptors - self.mean) / self.deviation, -CLIP, CLIP)
        return vectors

    def encode(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Encode images (JPEG, PNG ...).

        Shape:
            B images -> [B, dim].

        Raises:
            InputError: an image cannot be decoded; the message has its number, from 1.
        """
        named = ((f"image {number}", image) for number, image in enumerate(images, start=1))
        descriptors = np.zeros((len(images), DIM), dtype=np.float32)
        for row, descriptor in enumerate(describe_all(named)):
            descriptors[row] = descriptor
        return self.standardise(descriptors)


def describe_all(images: Iterable[tuple[str, bytes]]) -> Iterator[NDArray[np.float32]]:
    """Describe images on threads, in their order.

    Args:
        images: name, for messages, and encoded image.

    Raises:
        InputError: an image cannot be decoded; the message has its name.
    """
    return map_in_order(_describe_named, images)


def _describe_named(image: tuple[str, bytes]) -> NDArray[np.float32]:
    name, encoded = image
    try:
        return describe(encoded)
    except InputError as error:
        raise InputError(f"{name} {error}") from error


def _load_vector(path: Path) -> NDArray[np.float32]:
    return read_array(path, np.float32, (DIM,), remedy="rebuild it")
