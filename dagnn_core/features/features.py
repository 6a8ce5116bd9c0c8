"""The `features` artifact: feature matrices of both modalities, the label matrix, and the fitted encoders.

`image.npy` [N, d_I] and `text.npy` [N, d_T] float32, `labels.npy` uint8 [N, C] (`unseen_labels.npy` [N, U] too, where
the data set has it), `samples.parquet` (id, split,
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

from dagnn_core.arrays import read_array, read_columns
from dagnn_core.artifacts import Artifact, read_artifact
from dagnn_core.data.dataset import check_splits, read_unseen_labels
from dagnn_core.disk import writing
from dagnn_core.errors import ArtifactError

KIND = "features"
SHARD_KIND = "feature_shard"
IMAGE_ENCODER = "image_encoder"
TEXT_ENCODER = "text_encoder"
SAMPLES_SCHEMA = pa.schema(
    [("id", pa.string()), ("split", pa.string()), ("has_image", pa.bool_()), ("has_text", pa.bool_())]
)


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
    unseen_labels: NDArray[np.uint8]
    """Labels that training must not see, of test items alone, [N, U]; mostly U is 0."""

    @classmethod
    def read(cls, path: Path, *, verify: bool = False) -> "Features":
        """Open a features artifact.

        Raises:
            ArtifactError: it is missing or damaged, or its files are not what its manifest says.
        """
        artifact = read_artifact(path, KIND, verify=verify)
        content, remedy = artifact.require("label_names", "num_items", "splits", "image", "text"), artifact.remedy
        names, num_items = tuple(content["label_names"]), content["num_items"]
        samples = read_columns(artifact.file("samples.parquet"), SAMPLES_SCHEMA, num_items, remedy=remedy)
        splits = np.array(samples["split"].to_pylist())
        check_splits(splits, content["splits"], artifact)
        image, text = (
            read_array(
                artifact.file(f"{modality}.npy"),
                np.float32,
                (num_items, content[modality]["dim"]),
                remedy=remedy,
                mapped=True,
            )
            for modality in ("image", "text")
        )
        labels = read_array(artifact.file("labels.npy"), np.uint8, (num_items, len(names)), remedy=remedy)
        if labels.max(initial=0) > 1:
            raise ArtifactError(f"{artifact.file('labels.npy')} holds {labels.max()}, expected 0 and 1", remedy)
        return cls(
            artifact=artifact,
            label_names=names,
            ids=tuple(samples["id"].to_pylist()),
            splits=splits,
            has_image=samples["has_image"].to_numpy(),
            has_text=samples["has_text"].to_numpy(),
            image=image,
            text=text,
            labels=labels,
            unseen_labels=read_unseen_labels(artifact, splits),
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
    with writing(path):
        pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
