"""An index as a table: the way into other stores, past one machine.

Columns: `id`, `text`, `labels`, `image_vector` and `text_vector` (as the model made them, to be compared by cosine; all
zero where an item lacks the modality), and those that items can be filtered by. Rows are in the order of the index,
which breaks ties.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagnn_core.artifacts import Artifact
from dagnn_core.data.dataset import Modality
from dagnn_core.disk import writing
from dagnn_core.errors import InputError
from dagnn_core.progress import track
from dagnn_core.search.index import ITEMS, MODALITIES

BATCH = 1024  # rows that are in memory at a time
METADATA = b"dagnn"
"""Key of the schema's metadata under which `describe` stands, as JSON."""


def describe(index: Artifact) -> dict[str, Any]:
    """What a copy of an index says of its origin: digests of index and model, dimension, label names."""
    content = index.content
    return {
        "index_digest": index.content_digest,
        "model_digest": content["model"]["digest"],
        "num_items": content["num_items"],
        "dim": content["dim"],
        "label_names": list(content["model"]["label_names"]),
    }


def export_schema(index: Artifact) -> pa.Schema:
    """The columns of the table.

    Raises:
        InputError: a column that items can be filtered by has the name of one of the others.
    """
    vector = pa.list_(pa.float16() if index.content["dtype"] == "float16" else pa.float32(), index.content["dim"])
    vectors = [pa.field(f"{modality}_vector", vector) for modality in MODALITIES]
    fixed = [pa.field("id", pa.string()), pa.field("text", pa.string()), pa.field("labels", pa.list_(pa.string()))]
    for name in index.content["columns"]:
        if name in {field.name for field in vectors}:
            raise InputError(f"{index.path} has a column {name}, which the export makes itself", "rename it")
    columns = [pa.field(name, pa.string()) for name in index.content["columns"]]
    return pa.schema([*fixed, *vectors, *columns], metadata={METADATA: json.dumps(describe(index)).encode()})


def export_batches(index: Artifact) -> Iterator[pa.RecordBatch]:
    """The rows, BATCH at a time, with progress.

    Args:
        index: the index, whose checksums were checked.

    Raises:
        InputError: as `export_schema`.
    """
    schema = export_schema(index)
    vectors: Mapping[str, Any] = {
        modality: np.load(index.file(f"{modality}.npy"), mmap_mode="r", allow_pickle=False) for modality in MODALITIES
    }
    start = 0
    with pq.ParquetFile(index.file(ITEMS)) as items:
        batches = items.iter_batches(BATCH)
        for batch in track(batches, description="exporting", total=index.content["num_items"], size=len):
            arrays: dict[str, pa.Array] = {name: batch[name] for name in batch.schema.names}
            for modality in MODALITIES:
                block = np.asarray(vectors[modality][start : start + len(batch)])
                arrays[f"{modality}_vector"] = pa.FixedSizeListArray.from_arrays(block.ravel(), block.shape[1])
            yield pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)
            start += len(batch)


class Row(NamedTuple):
    """A row of a batch, without its vectors."""

    id: str
    text: str
    labels: list[str]
    columns: dict[str, str | None]


def rows_of(batch: pa.RecordBatch) -> list[Row]:
    """The rows of a batch of `export_batches`."""
    vectors = [f"{modality}_vector" for modality in MODALITIES]
    rows = batch.drop_columns(vectors).to_pylist()
    return [Row(row.pop("id"), row.pop("text"), row.pop("labels"), row) for row in rows]


def vectors_of(batch: pa.RecordBatch, modality: Modality) -> list[NDArray[np.float32] | None]:
    """The vectors of a batch, [D] each; None where an item lacks the modality."""
    flat = batch[f"{modality}_vector"].flatten().to_numpy()
    vectors = np.asarray(flat, dtype=np.float32).reshape(len(batch), -1)
    return [vector if vector.any() else None for vector in vectors]


def write_parquet(index: Artifact, out: Path) -> int:
    """Write the table to one Parquet file.

    Args:
        index: the index, whose checksums were checked.
        out: the file; one that is there is replaced when the new one is finished.

    Returns:
        Number of rows.

    Raises:
        InputError: as `export_schema`, or the file cannot be there.
        DiskError: the disk refuses it.
    """
    if out.suffix != ".parquet" or not out.absolute().parent.is_dir():
        raise InputError(f"{out} cannot be written, expected a file that ends in .parquet in a folder that exists")
    schema = export_schema(index)
    partial = out.with_suffix(".parquet.partial")
    try:
        with writing(out), pq.ParquetWriter(partial, schema) as writer:
            for batch in export_batches(index):
                writer.write_batch(batch)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return int(index.content["num_items"])
