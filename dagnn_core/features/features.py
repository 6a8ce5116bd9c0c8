"""The `features` artifact: feature matrices of both modalities, the label matrix, and the fitted encoders.

`image.npy` [N, d_I] and `text.npy` [N, d_T] float32, `labels.npy` uint8 [N, C], `samples.parquet` (id, split,
has_image, has_text), all in the row order of the data set; the features of a missing image or text are zeros.
`image_encoder/` and `text_encoder/` hold the state that encodes a new image or text the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagnn_core.artifacts import Artifact, read_artifact

KIND = "features"
IMAGE_ENCODER = "image_encoder"
TEXT_ENCODER = "text_encoder"


@dataclass(frozen=True, slots=True)
class Features:
    """Features opened for reading; the matrices are memory-mapped."""

    artifact: Artifact
    label_names: tuple[str, ...]
    ids: tuple[str, ...]
    splits: NDArray[np.str_]
    """Split of each item, [N]."""
    has_image: NDArray[np.bool_]
    """Which items have image features, [N]."""
    has_text: NDArray[np.bool_]
    """Which items have text features, [N]."""
    image: NDArray[np.float32]
    """Image features x_I, [N, d_I]; zeros where the image is missing."""
    text: NDArray[np.float32]
    """Text features x_T, [N, d_T]; zeros where the text is missing."""
    labels: NDArray[np.uint8]
    """Label matrix Y, [N, C]."""

    @classmethod
    def read(cls, path: Path, *, verify: bool = False) -> "Features":
        """Open a features artifact.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        artifact = read_artifact(path, KIND, verify=verify)
        samples = pq.read_table(artifact.file("samples.parquet"))
        return cls(
            artifact=artifact,
            label_names=tuple(artifact.content["label_names"]),
            ids=tuple(samples["id"].to_pylist()),
            splits=np.array(samples["split"].to_pylist()),
            has_image=samples["has_image"].to_numpy(),
            has_text=samples["has_text"].to_numpy(),
            image=np.load(artifact.file("image.npy"), mmap_mode="r", allow_pickle=False),
            text=np.load(artifact.file("text.npy"), mmap_mode="r", allow_pickle=False),
            labels=np.load(artifact.file("labels.npy"), allow_pickle=False),
        )

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of one split, ascending."""
        return np.flatnonzero(self.splits == split)

    def pairs(self, split: str) -> NDArray[np.int64]:
        """Row numbers of the items of one split that have both image and text, ascending."""
        return np.flatnonzero((self.splits == split) & self.has_image & self.has_text)


def write_samples(
    path: Path, ids: Sequence[str], splits: Sequence[str], has_image: Sequence[bool], has_text: Sequence[bool]
) -> None:
    """Write `samples.parquet`."""
    columns = {"id": ids, "split": splits, "has_image": has_image, "has_text": has_text}
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
