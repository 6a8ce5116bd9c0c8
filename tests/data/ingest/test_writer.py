import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dagnn_core.artifacts import sha256_of, write_artifact
from dagnn_core.data.dataset import KIND, ROW_GROUP_ITEMS, SCHEMA, Dataset, Item, Rejection
from dagnn_core.data.ingest import shards as shards_module
from dagnn_core.data.ingest.writer import DatasetWriter

NAMES = ("boat", "water")


def items(count, size=10):
    return [
        Item(f"i{i}", f"text {i}", NAMES[: 1 + i % 2], bytes([i % 256]) * size, f"{i}.jpg", "train")
        for i in range(count)
    ]


def write(out, rows, **options):
    with write_artifact(out, kind=KIND, provenance={}) as draft:
        with DatasetWriter(draft.path, NAMES, **options) as writer:
            for row in rows:
                writer.add(row)
            writer.write_rejected([])
        draft.content = writer.content
    return Dataset.read(out, verify=True)


def group_sizes(path):
    metadata = pq.read_metadata(path)
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def test_shards_close_at_their_size_and_row_groups_stay_small(tmp_path):
    rows = items(3 * ROW_GROUP_ITEMS + 5)
    dataset = write(tmp_path / "d", rows, shard_bytes=10 * ROW_GROUP_ITEMS + 1)
    shards = sorted((tmp_path / "d").glob("data-*.parquet"))
    assert [group_sizes(shard) for shard in shards] == [[ROW_GROUP_ITEMS] * 2, [ROW_GROUP_ITEMS, 5]]
    assert dataset.ids == tuple(row.id for row in rows)
    assert dataset.images([0, 600, len(rows) - 1]) == [rows[i].image for i in (0, 600, len(rows) - 1)]


def test_large_images_make_smaller_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "ROW_GROUP_BYTES", 100)
    write(tmp_path / "d", items(25))
    assert group_sizes(tmp_path / "d" / "data-00000.parquet") == [10, 10, 5]


def test_content_counts_items_labels_splits_and_reasons(tmp_path):
    with DatasetWriter(tmp_path, NAMES) as writer:
        writer.add(Item("a", "t", ("water",), None, "", "train"))
        writer.add(Item("b", "t", ("water", "boat"), None, "", "test"))
        writer.add(Item("c", "", ("water",), b"C", "c.jpg", "train", has_text=False))
        writer.add(Item("d", "t", ("water",), None, "", "train", has_image=False))
        writer.write_rejected([Rejection(2, "x", "no label"), Rejection(4, "y", "no label"), Rejection(5, "", "no id")])
        writer.write_vectors("image", np.zeros((4, 7), np.float16), range(4))
    assert writer.content == {
        "label_names": ["boat", "water"],
        "num_items": 4,
        "splits": {"train": 3, "val": 0, "test": 1},
        "modalities": {"complete": 2, "image_only": 1, "text_only": 1},
        "label_counts": {
            "train": {"boat": 0, "water": 3},
            "val": {"boat": 0, "water": 0},
            "test": {"boat": 1, "water": 1},
        },
        "rejected": {"no label": 2, "no id": 1},
        "vectors": {"image": {"dim": 7, "dtype": "float16"}},
    }
    assert pq.read_table(tmp_path / "rejected.parquet").to_pylist()[0] == {
        "row": 2,
        "id": "x",
        "reason": "no label",
        "detail": "",
    }


def test_equal_items_make_equal_files(tmp_path):
    digests = {write(tmp_path / name, items(300)).artifact.content_digest for name in "ab"}
    assert len(digests) == 1


def test_without_kept_columns_files_and_manifest_are_as_they_ever_were(tmp_path):
    rows = items(3)
    artifact = write(tmp_path / "d", rows).artifact
    assert "columns" not in artifact.content
    columns = [
        [row.id for row in rows],
        [row.text for row in rows],
        [list(row.labels) for row in rows],
        [{"bytes": row.image, "path": row.image_path} for row in rows],
        ["train"] * 3,
        [True] * 3,
        [True] * 3,
    ]
    options = {"compression": "none", "use_dictionary": ["split"], "write_statistics": False}
    with pq.ParquetWriter(tmp_path / "expected.parquet", SCHEMA, **options) as writer:
        writer.write_table(pa.table(columns, schema=SCHEMA))
    assert artifact.file("data-00000.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_columns_of_the_source_come_back(tmp_path):
    cells = {"camera": ["夜", "", "day"], "id": ["7", "8", "9"], "f. stop": ["1.5", "22.0", "2"]}
    rows = [
        item._replace(columns={name: column[row] for name, column in cells.items()})
        for row, item in enumerate(items(3))
    ]
    dataset = write(tmp_path / "d", rows, columns=tuple(cells), shard_bytes=1)
    assert dataset.columns == {name: tuple(column) for name, column in cells.items()}
    assert dataset.ids == ("i0", "i1", "i2")
    assert dataset.artifact.content["columns"] == ["camera", "id", "f. stop"]
    assert pq.read_schema(dataset.artifact.file("data-00000.parquet")).names[-3:] == [
        "column_camera",
        "column_id",
        "column_f. stop",
    ]


def test_a_failure_inside_the_block_leaves_whole_shards_alone_and_passes_on(tmp_path):
    with pytest.raises(ZeroDivisionError), DatasetWriter(tmp_path, NAMES, shard_bytes=1) as writer:
        for row in items(ROW_GROUP_ITEMS + 1):
            writer.add(row)
        raise ZeroDivisionError
    [shard] = tmp_path.iterdir()
    assert shard.name == f"data-00000-{sha256_of(shard)}.parquet"
    assert group_sizes(shard) == [ROW_GROUP_ITEMS]
