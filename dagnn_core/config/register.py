"""Section `register`: the registered model, and the gate before its champion."""

from typing import Annotated, ClassVar

from pydantic import Field

from dagnn_core.config.section import DEFAULT_SEED, Positive, Rate, Seed, Share, section


@section
class GateConfig:
    """What a version must hold to become champion (`dagnn promote`); the two floors, to be registered at all.

    A drop is that of the mean average precision (MAP) below the champion's on the same test split: the upper end of its
    one-sided interval by paired bootstrap, so that a challenger must show that it is not worse, and few test items
    show little.
    """

    min_map_i2t: Share = 0.0
    """Least MAP of images as queries for texts, on the test split."""
    min_map_t2i: Share = 0.0
    """Least MAP of texts as queries for images, on the test split."""
    max_drop_i2t: Rate = 0.02
    """Largest drop of MAP, image to text."""
    max_drop_t2i: Rate = 0.02
    """Largest drop of MAP, text to image."""
    max_slice_drop: Rate = 0.05
    """Largest drop of MAP over the queries of each slice."""
    rare_labels: Annotated[float, Field(gt=0, le=1)] = 0.25
    """This fraction of the test split's labels, the least frequent in training, is the slice of rare labels."""
    short_texts: Annotated[float, Field(gt=0, le=1)] = 0.25
    """This fraction of the test split's texts, those of the fewest words, is the slice of short texts."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Probability that a drop is within its bound."""
    num_resamples: Annotated[int, Field(ge=100)] = 2000
    """Resamples of the bootstrap."""
    seed: Seed = DEFAULT_SEED
    """Draws the resamples."""
    max_latency_ms: Positive = 500.0
    """Milliseconds that a single query takes at most, at the 95th percentile, in a fresh process."""
    max_memory_mib: Positive = 4096.0
    """Peak memory of that process, in MiB."""
    max_leaked_images: Rate = 0.01
    """Fraction of held-out images that another split may have, too, identical or nearly."""


@section
class RegisterConfig:
    """The registered model, and what its versions must hold."""

    NAME: ClassVar[str] = "register"

    model_name: Annotated[str, Field(min_length=1)] = "dagnn"
    """Name of the registered model."""
    data_licence: str = ""
    """Licence or terms of the data, for the model card."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """What a version must hold to become champion."""
