"""The settings of the demo data set."""

from dataclasses import dataclass

from dagnn_core.errors import InputError

_RATES = ("omission", "synonym", "noise", "misleading")
_MIN_SIDE = 96  # smaller, things cannot be told apart


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSpec:
    """How many scenes to render, how large, and how loosely the sentences describe them."""

    num_scenes: int = 1800
    """Number of items, each a picture, a sentence and two to six labels."""
    width: int = 160
    """Width of a picture in pixels."""
    height: int = 120
    """Height of a picture in pixels."""
    seed: int = 103
    """Draws the scenes: item i depends on the seed and i alone."""
    omission: float = 0.3
    """Probability that the sentence passes over a label (it always names at least one)."""
    synonym: float = 0.6
    """Probability that the sentence names a label by another word than its plain name."""
    noise: float = 0.6
    """Probability that the sentence has a clause that says nothing about the picture."""
    misleading: float = 0.1
    """Probability that the sentence names something that the picture does not show."""

    def __post_init__(self) -> None:
        lowest = {"num_scenes": 1, "width": _MIN_SIDE, "height": _MIN_SIDE, "seed": 0}
        for key, bound in lowest.items():
            value = getattr(self, key)
            if value < bound:
                raise InputError(f"demo.{key} must be >= {bound}, got {value}")
        for key in _RATES:
            value = getattr(self, key)
            if not 0 <= value <= 1:
                raise InputError(f"demo.{key} must be between 0 and 1, got {value}")
