"""Encoders turn raw pictures and sentences into feature vectors; their fitted state travels with the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import Modality
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.backbone import ImageBackbone, TextBackbone
from dagnn_core.features.encoders.classic import ClassicEncoder
from dagnn_core.features.encoders.huggingface import HuggingFaceImageBackbone, HuggingFaceTextBackbone
from dagnn_core.features.encoders.state import STATE, read_state, write_state
from dagnn_core.features.encoders.supervised import SupervisedEncoder
from dagnn_core.features.encoders.vgg import VggBackbone
from dagnn_core.features.encoders.words import WordEncoder

T = TypeVar("T")


class Encoder(Protocol):
    """What every encoder has."""

    @property
    def kind(self) -> str:
        """Its name in the configuration: `features.image` or `features.text`."""

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""

    def save(self, directory: Path) -> None:
        """Write the state into a directory."""


class ImageEncoder(Encoder, Protocol):
    """Turns pictures into vectors."""

    def encode(self, pictures: Sequence[bytes], /) -> NDArray[np.float32]:
        """Encode pictures (JPEG, PNG ...).

        Shape:
            B pictures -> [B, dim].

        Raises:
            InputError: a picture cannot be decoded, or this encoder takes vectors only.
        """


class TextEncoder(Encoder, Protocol):
    """Turns sentences into vectors."""

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Encode sentences.

        Shape:
            B sentences -> [B, dim].

        Raises:
            InputError: this encoder takes vectors only.
        """


@dataclass(frozen=True, slots=True)
class PrecomputedEncoder:
    """Stands for vectors that came with the data set; it cannot encode anything raw."""

    modality: Modality
    dim: int

    @property
    def kind(self) -> str:
        """Name of the encoder in the configuration."""
        return "precomputed"

    def save(self, directory: Path) -> None:
        """Write the state into a directory."""
        write_state(directory, {"kind": self.kind, "modality": self.modality, "dim": self.dim})

    @classmethod
    def load(cls, directory: Path) -> "PrecomputedEncoder":
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        state = read_state(directory)
        modality, dim = state.get("modality"), state.get("dim")
        if modality not in ("image", "text") or not isinstance(dim, int) or dim < 1:
            raise ArtifactError(f"{directory / STATE} is damaged, expected `modality` and `dim`; make it again")
        return cls(modality=modality, dim=dim)

    def encode(self, _raw: Sequence[object], /) -> NoReturn:
        """Refuse.

        Raises:
            InputError: always.
        """
        raw = {"image": "a picture", "text": "a sentence"}[self.modality]
        raise InputError(
            f"this model was trained on precomputed {self.modality} vectors and cannot encode {raw}; pass vectors"
        )


def open_image_backbone(config: FeaturesConfig) -> ImageBackbone:
    """Open the network of `features.image`, one of `huggingface` and `vgg19_bn`, on the CPU.

    Raises:
        InputError: there is no such model, or it cannot be used.
        SurroundingsError: the Hugging Face hub cannot be reached.
    """
    assert config.image in ("huggingface", "vgg19_bn")
    if config.image == "vgg19_bn":
        return VggBackbone.open(Path(config.image_model), store=config.store_backbone)
    return HuggingFaceImageBackbone.open(
        config.image_model, config.image_revision, config.image_pooling, store=config.store_backbone
    )


def open_text_backbone(config: FeaturesConfig) -> TextBackbone:
    """Open the network of `features.text`, which is `huggingface`, on the CPU.

    Raises:
        InputError: there is no such model, or it cannot be used.
        SurroundingsError: the Hugging Face hub cannot be reached.
    """
    assert config.text == "huggingface"
    return HuggingFaceTextBackbone.open(
        config.text_model, config.text_revision, config.text_pooling, store=config.store_backbone
    )


def load_image_encoder(directory: Path) -> ImageEncoder:
    """Load a fitted image encoder.

    Raises:
        ArtifactError: its state is missing, damaged, or of another version, or its pretrained model has changed.
        InputError: its pretrained model, which is not stored with it, cannot be used.
        SurroundingsError: the Hugging Face hub cannot be reached for it.
    """
    loaders: dict[str, Callable[[Path], ImageEncoder]] = {
        "classic": ClassicEncoder.load,
        "huggingface": HuggingFaceImageBackbone.load,
        "vgg19_bn": VggBackbone.load,
        "precomputed": PrecomputedEncoder.load,
    }
    return _load(directory, loaders)


def load_text_encoder(directory: Path) -> TextEncoder:
    """Load a fitted text encoder.

    Raises:
        ArtifactError: its state is missing or damaged, or its pretrained model has changed.
        InputError: its pretrained model, which is not stored with it, cannot be used.
        SurroundingsError: the Hugging Face hub cannot be reached for it.
    """
    loaders: dict[str, Callable[[Path], TextEncoder]] = {
        "bow": WordEncoder.load,
        "tfidf": WordEncoder.load,
        "supervised_bow": SupervisedEncoder.load,
        "huggingface": HuggingFaceTextBackbone.load,
        "precomputed": PrecomputedEncoder.load,
    }
    return _load(directory, loaders)


def _load(directory: Path, loaders: Mapping[str, Callable[[Path], T]]) -> T:
    kind = read_state(directory)["kind"]
    if kind not in loaders:
        raise ArtifactError(f"{directory / STATE}: kind {kind!r}, expected one of {', '.join(loaders)}; make it again")
    return loaders[kind](directory)
