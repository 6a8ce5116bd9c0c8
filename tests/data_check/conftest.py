import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dagnn_core.artifacts import Artifact, read_artifact, write_artifact
from dagnn_core.data.dataset import KIND, Item
from dagnn_core.data.ingest.writer import DatasetWriter

WriteDataset = Callable[..., Artifact]


@pytest.fixture(scope="session")
def scene() -> Callable[[int], Image.Image]:
    """A smooth image in colour, another one for each seed."""

    def draw(seed: int) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)

    return draw


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """An image as JPEG."""

    def encode_image(image: Image.Image, quality: int = 95) -> bytes:
        stream = io.BytesIO()
        image.save(stream, format="JPEG", quality=quality)
        return stream.getvalue()

    return encode_image


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
