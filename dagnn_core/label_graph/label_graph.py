"""The `label_graph` artifact: how labels occur together, the adjacency made from it, and the vectors of the nodes.

`counts.npy`, `label_counts.npy`, `conditional.npy`, `adjacency.npy`, `normalized.npy` and `embeddings.npy` in the order
of the label names, and `label_graph.png`, an image of them. `unseen_embeddings.npy`, where the data set has unseen
labels, holds the vectors of those of them that have one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dagnn_core.arrays import read_array
from dagnn_core.artifacts import Artifact, read_artifact

KIND = "label_graph"
DRAWING = "label_graph.png"
UNSEEN_EMBEDDINGS = "unseen_embeddings.npy"
ARRAYS: Mapping[str, tuple[type[np.generic], str]] = {
    "counts": (np.int64, "CC"),
    "label_counts": (np.int64, "C"),
    "conditional": (np.float64, "CC"),
    "adjacency": (np.float64, "CC"),
    "normalized": (np.float64, "CC"),
    "embeddings": (np.float32, "Ce"),
}
"""Name of an array -> type and shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelGraph:
    """A label graph opened for reading; formulas in `cooccurrence`."""

    artifact: Artifact
    label_names: tuple[str, ...]
    counts: NDArray[np.int64]
    """M, [C, C]: training items with both labels; zero diagonal."""
    label_counts: NDArray[np.int64]
    """N, [C]: training items with the label."""
    conditional: NDArray[np.float64]
    """P, [C, C]: P_ij = P(i | j)."""
    adjacency: NDArray[np.float64]
    """A, [C, C]: thresholded, re-weighted, with self-loops."""
    normalized: NDArray[np.float64]
    """Â, [C, C]: what a graph convolution multiplies with."""
    embeddings: NDArray[np.float32]
    """E, [C, e]: vectors of the label nodes."""
    unseen_embeddings: NDArray[np.float32]
    """Vectors of the unseen labels that have one, [U, e]; mostly U is 0."""

    @property
    def threshold(self) -> float:
        """Conditional probability from which on labels are connected."""
        return float(self.artifact.content["threshold"])

    @property
    def is_drawn(self) -> bool:
        """Whether the vectors of the nodes are drawn, to be trained with the network."""
        return bool(self.artifact.content.get("embedding", {}).get("kind") == "learned")

    @classmethod
    def read(cls, path: Path, *, verify: bool = False) -> "LabelGraph":
        """Open a label graph artifact.

        Raises:
            ArtifactError: it is missing or damaged, or its files are not what its manifest says.
        """
        artifact = read_artifact(path, KIND, verify=verify)
        content = artifact.require("label_names", "threshold", "embedding")
        size = {"C": len(content["label_names"]), "e": content["embedding"]["dim"]}
        arrays = {
            name: read_array(
                artifact.file(f"{name}.npy"), dtype, [size[letter] for letter in shape], remedy=artifact.remedy
            )
            for name, (dtype, shape) in ARRAYS.items()
        }
        num_unseen = len(content.get("unseen_label_names", ()))
        unseen = np.zeros((0, size["e"]), np.float32)
        if num_unseen:
            file = artifact.file(UNSEEN_EMBEDDINGS)
            unseen = read_array(file, np.float32, (num_unseen, size["e"]), remedy=artifact.remedy)
        return cls(artifact=artifact, label_names=tuple(content["label_names"]), unseen_embeddings=unseen, **arrays)
