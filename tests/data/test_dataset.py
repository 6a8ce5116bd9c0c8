import numpy as np
import pytest

from dagnn_core.artifacts import write_artifact
from dagnn_core.data.dataset import KIND, Dataset, Item
from dagnn_core.data.ingest.writer import DatasetWriter
from dagnn_core.errors import ArtifactError

ITEMS = [
    Item("a", "a boat", ("boat", "water"), b"A", "a.jpg", "train"),
    Item("b", "the sea", ("water",), b"B", "b.jpg", "test"),
    Item("c", "two boats", ("boat",), None, "", "train", has_image=False),
    Item("d", "", ("boat",), b"D", "d.jpg", "train", has_text=False),
]


@pytest.fixture
def path(tmp_path):
    out = tmp_path / "dataset"
    with write_artifact(out, kind=KIND, provenance={}) as draft:
        with DatasetWriter(draft.path, ("water", "boat"), shard_bytes=1) as writer:
            for item in ITEMS:
                writer.add(item)
            writer.write_rejected([])
            writer.write_vectors("text", np.eye(4, dtype=np.float32), range(4))
        draft.content = writer.content
    return out


def test_items_come_back_in_order(path):
    dataset = Dataset.read(path, verify=True)
    assert len(dataset) == 4
    assert dataset.ids == ("a", "b", "c", "d")
    assert dataset.texts == ("a boat", "the sea", "two boats", "")
    assert dataset.label_names == ("water", "boat")
    np.testing.assert_array_equal(dataset.labels, [[1, 1], [1, 0], [0, 1], [0, 1]])
    assert dataset.labels.dtype == np.uint8
    assert dataset.rows("train").tolist() == [0, 2, 3]
    assert dataset.rows("val").tolist() == []
    np.testing.assert_array_equal(dataset.has_image, [True, True, False, True])
    np.testing.assert_array_equal(dataset.has_text, [True, True, True, False])
    assert dataset.has_image.dtype == dataset.has_text.dtype == bool


def test_images_come_in_the_order_asked_for(path):
    dataset = Dataset.read(path)
    assert dataset.images([2, 0, 1, 0]) == [None, b"A", b"B", b"A"]
    assert [image for batch in dataset.iterate_images() for image in batch] == [b"A", b"B", None, b"D"]


@pytest.mark.parametrize("wanted", [[0, 3], [2], [], [0, 1, 2, 3]])
def test_only_images_that_are_wanted_come(path, wanted):
    dataset = Dataset.read(path)
    mask = np.isin(np.arange(4), wanted)
    images = [image for batch in dataset.iterate_images(mask) for image in batch]
    assert images == dataset.images(wanted)


def test_vectors_are_there_or_none(path):
    dataset = Dataset.read(path)
    assert dataset.vectors("image") is None
    np.testing.assert_array_equal(dataset.vectors("text"), np.eye(4))


def test_a_damaged_shard_is_named(path):
    shard = path / "data-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"data-00000\.parquet does not have the checksum.*dvc repro dataset"):
        Dataset.read(path, verify=True)
    shard.unlink()
    with pytest.raises(ArtifactError, match=r"data-00000\.parquet is missing"):
        Dataset.read(path)
