"""The encoder `precomputed`: a place holder for vectors that came with the data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dagnn_core.data.dataset import Modality
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.state import STATE, read_state, write_state


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
            raise ArtifactError(f"{directory / STATE} is damaged, expected `modality` and `dim`", "rebuild it")
        return cls(modality=modality, dim=dim)

    def encode(self, _raw: Sequence[object], /) -> NoReturn:
        """Refuse.

        Raises:
            InputError: always.
        """
        raw = {"image": "an image", "text": "a text"}[self.modality]
        raise InputError(
            f"this model was trained on precomputed {self.modality} vectors and cannot encode {raw}", "pass vectors"
        )
