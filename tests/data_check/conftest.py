from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from dagnn_core.artifacts import Artifact, read_artifact, write_artifact
from dagnn_core.data.dataset import KIND, Item
from dagnn_core.data.ingest.writer import DatasetWriter

WriteDataset = Callable[..., Artifact]


@pytest.fixture
def write(tmp_path: Path) -> WriteDataset:
    """Write a data set of items into a folder of its own, with precomputed image vectors where they are given."""

    def write_items(
        items: Sequence[Item],
        label_names: Sequence[str],
        *,
        image_vectors: np.ndarray | None = None,
        name: str = "dataset",
    ) -> Artifact:
        with write_artifact(tmp_path / name, kind=KIND, provenance={"ancestors": {}}) as draft:
            with DatasetWriter(draft.path, label_names) as writer:
                for item in items:
                    writer.add(item)
                writer.write_rejected([])
                if image_vectors is not None:
                    writer.write_vectors("image", image_vectors, range(len(image_vectors)))
            draft.content = writer.content
        return read_artifact(tmp_path / name, KIND)

    return write_items
