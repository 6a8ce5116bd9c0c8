"""The settings of the demo data set."""

from typing import Annotated

from pydantic import Field

from dagnn_core.config.section import Count, Seed, Share, section

Side = Annotated[int, Field(ge=96)]  # smaller, things cannot be told apart


@section
class DemoSpec:
    """How many scenes to render, how large, and how loosely the texts describe them."""

    num_scenes: Count = 1800
    """Number of items, each an image, a text and two to six labels."""
    width: Side = 160
    """Width of an image in pixels."""
    height: Side = 120
    """Height of an image in pixels."""
    seed: Seed = 103
    """Draws the scenes: item i depends on the seed and i alone."""
    omission: Share = 0.3
    """Probability that the text passes over a label (it always names at least one)."""
    synonym: Share = 0.6
    """Probability that the text names a label by another word than its plain name."""
    noise: Share = 0.6
    """Probability that the text has a clause that says nothing about the image."""
    misleading: Share = 0.1
    """Probability that the text names something that the image does not show."""
