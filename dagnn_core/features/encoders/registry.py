"""Encoders turn raw images and texts into feature vectors; their fitted state travels with the model.

The tables of encoders are in `dagnn_core.config.features`; an import path, `package.module:Class`, names one of your
own (`examples/custom_parts.py` has two). Such a class has the attribute `KIND`, its import path: only a class that says
so is called, since the name may come from the files of a model. It has `load(directory)`, and one of these, by which
extraction knows how to make it:

- `open(config)`: a network or function that needs no fitting, an `ImageBackbone` or `TextBackbone` (see `backbone`);
- `fit_texts(train, val, config)`: a text encoder that is fitted on `LabelledTexts` of the training split.

`save(directory)` writes the state with `dagnn_core.features.encoders.state.write_state`, `kind` among it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dagnn_core.arrays import opening
from dagnn_core.config.features import IMAGE_ENCODERS, TEXT_ENCODERS, FeaturesConfig
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.backbone import ImageBackbone, TextBackbone
from dagnn_core.features.encoders.state import STATE, read_state
from dagnn_core.registry import IMPORT_PATH, find


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
    """Turns images into vectors."""

    def encode(self, images: Sequence[bytes], /) -> NDArray[np.float32]:
        """Encode images (JPEG, PNG ...).

        Shape:
            B images -> [B, dim].

        Raises:
            InputError: an image cannot be decoded, or this encoder takes vectors only.
        """


class TextEncoder(Encoder, Protocol):
    """Turns texts into vectors."""

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Encode texts.

        Shape:
            B texts -> [B, dim].

        Raises:
            InputError: this encoder takes vectors only.
        """


def image_encoder_class(kind: str) -> Any:
    """Class of the image encoder of this name or import path.

    Raises:
        InputError: it cannot be imported, or is not such a class.
    """
    return _class_of(IMAGE_ENCODERS, kind, "features.image")


def text_encoder_class(kind: str) -> Any:
    """Class of the text encoder of this name or import path.

    Raises:
        InputError: it cannot be imported, or is not such a class.
    """
    return _class_of(TEXT_ENCODERS, kind, "features.text")


def open_image_backbone(config: FeaturesConfig) -> ImageBackbone:
    """Open the pretrained network of `features.image` on the CPU.

    Raises:
        InputError: there is no such model, or it cannot be used.
        BackendError: the Hugging Face hub cannot be reached.
    """
    backbone: ImageBackbone = image_encoder_class(config.image).open(config)
    return backbone


def open_text_backbone(config: FeaturesConfig) -> TextBackbone:
    """Open the pretrained network of `features.text` on the CPU.

    Raises:
        InputError: there is no such model, or it cannot be used.
        BackendError: the Hugging Face hub cannot be reached.
    """
    backbone: TextBackbone = text_encoder_class(config.text).open(config)
    return backbone


def load_image_encoder(directory: Path) -> ImageEncoder:
    """Load a fitted image encoder.

    Raises:
        ArtifactError: its state is missing, damaged, or of another version, or its pretrained model has changed.
        InputError: its pretrained model, which is not stored with it, cannot be used.
        BackendError: the Hugging Face hub cannot be reached for it.
    """
    encoder: ImageEncoder = _load(directory, IMAGE_ENCODERS, "features.image")
    return encoder


def load_text_encoder(directory: Path) -> TextEncoder:
    """Load a fitted text encoder.

    Raises:
        ArtifactError: its state is missing or damaged, or its pretrained model has changed.
        InputError: its pretrained model, which is not stored with it, cannot be used.
        BackendError: the Hugging Face hub cannot be reached for it.
    """
    encoder: TextEncoder = _load(directory, TEXT_ENCODERS, "features.text")
    return encoder


def _load(directory: Path, table: Mapping[str, str], key: str) -> Any:
    kind = read_state(directory)["kind"]
    if kind not in table and not IMPORT_PATH.fullmatch(kind):
        raise ArtifactError(f"{directory / STATE}: kind {kind!r}, expected one of {', '.join(table)}", "rebuild it")
    encoder = _class_of(table, kind, key)
    with opening(directory, "rebuild it"):
        return encoder.load(directory)


def _class_of(table: Mapping[str, str], kind: str, key: str) -> Any:
    found = find(table, kind, key)
    # the file of a model must not choose what is called: only a class that says of itself that it is this encoder
    if kind not in table and not (isinstance(found, type) and getattr(found, "KIND", None) == kind):
        raise InputError(f"{key}: {kind} is {found!r}, expected a class with the attribute KIND = {kind!r}", "add it")
    return found
