"""A trained model that embeds new images and texts; an encoder is loaded when it is first needed."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dagnn_core.features.encoders.registry import ImageEncoder, TextEncoder, load_image_encoder, load_text_encoder
from dagnn_core.features.features import IMAGE_ENCODER, TEXT_ENCODER
from dagnn_core.model.files import TrainedNetwork


class TrainedModel(TrainedNetwork):
    """A trained network with the encoders that make its features."""

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        """The encoder of images, with its fitted state.

        Raises:
            ArtifactError: its state is damaged, or its pretrained model has changed.
            InputError: its pretrained model, which is not stored with it, cannot be used.
            BackendError: the Hugging Face hub cannot be reached for it.
        """
        return load_image_encoder(self.artifact.path / IMAGE_ENCODER)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The encoder of texts, with its fitted state.

        Raises:
            ArtifactError: its state is damaged, or its pretrained model has changed.
            InputError: its pretrained model, which is not stored with it, cannot be used.
            BackendError: the Hugging Face hub cannot be reached for it.
        """
        return load_text_encoder(self.artifact.path / TEXT_ENCODER)

    def encode_images(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        """Embed encoded images (JPEG, PNG ...).

        Shape:
            N images -> [N, d].

        Raises:
            InputError: an undecodable image, or a model trained on precomputed image vectors.
        """
        return self.embed_image_features(self.image_encoder.encode(images))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Shape:
            N texts -> [N, d].

        Raises:
            InputError: a model trained on precomputed text vectors.
        """
        return self.embed_text_features(self.text_encoder.encode(texts))
