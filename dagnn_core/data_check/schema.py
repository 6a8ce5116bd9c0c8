"""Whether the files of a data set are what the format says."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagnn_core.artifacts import Artifact
from dagnn_core.data.dataset import SCHEMA, SPLITS, Dataset, Modality, shards, with_columns
from dagnn_core.data_check.findings import Finding, judge

MODALITIES: tuple[Modality, ...] = ("image", "text")
REMEDY = "import the data again"
ROWS_AT_A_TIME = 8192  # of precomputed vectors, which may be larger than the memory


def check_schema(artifact: Artifact) -> list[Finding]:
    """Check columns, types, ids, labels and splits, without reading images.

    Returns:
        Where the columns are wrong, that alone: nothing else can be read.
    """
    faults = [*_shard_faults(artifact), *_vector_faults(artifact)]
    schema = judge(
        "schema_faults",
        len(faults),
        0,
        f"files whose columns, types or shapes are not those of a data set; {REMEDY}",
        examples=faults,
    )
    return [schema] if faults else [schema, *_item_findings(artifact)]


def check_vectors(dataset: Dataset) -> Iterator[Finding]:
    """Look for precomputed vectors that say nothing."""
    present = {"image": dataset.has_image, "text": dataset.has_text}
    for modality in MODALITIES:
        vectors = dataset.vectors(modality)
        if vectors is None:
            continue
        finite, zero = (np.zeros(len(dataset), bool) for _ in range(2))
        for start in range(0, len(dataset), ROWS_AT_A_TIME):
            rows = slice(start, start + ROWS_AT_A_TIME)
            finite[rows] = np.isfinite(vectors[rows]).all(axis=1)
            zero[rows] = ~vectors[rows].any(axis=1)
        bad = [dataset.ids[row] for row in np.flatnonzero(~finite)]
        yield judge(
            f"{modality}_vectors_not_finite",
            len(bad),
            0,
            "precomputed vectors with NaN or infinity; leave these items out",
            examples=bad,
        )
        zeros = [dataset.ids[row] for row in np.flatnonzero(zero & present[modality])]
        yield judge(
            f"{modality}_vectors_zero",
            len(zeros),
            0,
            "precomputed vectors of zeros alone, which rank last; rebuild them or leave these items out",
            examples=zeros,
            above="warning",
        )


def _shard_faults(artifact: Artifact) -> Iterator[str]:
    num_rows = 0
    schema = with_columns(SCHEMA, artifact.content.get("columns", ()))
    for shard in shards(artifact):
        try:
            with pq.ParquetFile(shard) as file:
                found = {field.name: field.type for field in file.schema_arrow}
                num_rows += file.metadata.num_rows
        except pa.ArrowInvalid as error:
            yield f"{shard.name} is not a Parquet file ({error})"
            continue
        wrong = [field for field in schema if found.get(field.name) != field.type]
        for field in wrong:
            yield f"{shard.name}: column {field.name} is {found.get(field.name, 'missing')}, expected {field.type}"
        if not wrong:
            yield from _missing_cells(shard, schema.names)
    if num_rows == 0:
        yield "no items"
    if artifact.content.get("num_items") != num_rows:
        yield f"the manifest counts {artifact.content.get('num_items')} items, the files have {num_rows}"
    names = artifact.content.get("label_names")
    if not isinstance(names, list) or not names or len(set(names)) < len(names):
        yield "the manifest does not list the label names, each once"


def _missing_cells(shard: Path, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name != "image":
            missing = pq.read_table(shard, columns=[name])[name].null_count
            if missing:
                yield f"{shard.name}: column {name} is null in {missing} rows"


def _vector_faults(artifact: Artifact) -> Iterator[str]:
    for modality in MODALITIES:
        name = f"vectors/{modality}.npy"
        if name not in artifact.files:
            continue
        try:
            vectors = np.load(artifact.file(name), mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            yield f"{name} cannot be read ({error})"
            continue
        num_items = artifact.content.get("num_items")
        if vectors.ndim != 2 or len(vectors) != num_items or vectors.dtype.kind != "f":
            shape = list(vectors.shape)
            yield f"{name} is {vectors.dtype} {shape}, expected floating-point numbers [{num_items}, dim]"


def _item_findings(artifact: Artifact) -> Iterator[Finding]:
    columns = [name for name in SCHEMA.names if name != "image"]
    table = pa.concat_tables(pq.read_table(shard, columns=columns) for shard in shards(artifact))
    ids, splits, labels = (table[name].to_pylist() for name in ("id", "split", "labels"))

    twice = [item for item, count in Counter(ids).items() if count > 1]
    yield judge("duplicate_ids", len(twice), 0, f"ids that several items have; {REMEDY}", examples=twice)

    strange = [f"{item}: {split!r}" for item, split in zip(ids, splits, strict=True) if split not in SPLITS]
    expected = ", ".join(SPLITS)
    yield judge(
        "unknown_splits", len(strange), 0, f"items in a split that is none of {expected}; {REMEDY}", examples=strange
    )

    known = set(artifact.content["label_names"])
    unknown = [
        f"{item}: {name!r}" for item, names in zip(ids, labels, strict=True) for name in names if name not in known
    ]
    yield judge(
        "unknown_labels", len(unknown), 0, f"labels that the manifest does not name; {REMEDY}", examples=unknown
    )

    bare = [item for item, names in zip(ids, labels, strict=True) if not names]
    yield judge(
        "unlabelled_items",
        len(bare),
        0,
        "items without any label, which nothing is relevant to; leave them out",
        examples=bare,
        above="warning",
    )

    empty = pc.equal(pc.binary_length(table["text"]), 0).to_numpy()
    has_text = table["has_text"].to_numpy()
    may_be_empty = "vectors/text.npy" in artifact.files  # a precomputed vector is a text, too
    wrong = [ids[row] for row in np.flatnonzero(np.where(empty, has_text & (not may_be_empty), ~has_text))]
    yield judge(
        "text_flag_faults",
        len(wrong),
        0,
        f"items whose has_text does not say whether they have a text; {REMEDY}",
        examples=wrong,
    )
