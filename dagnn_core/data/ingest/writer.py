"""Write the files of a `dataset` artifact, one item after the other."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dagnn_core.data.dataset import REJECTED_SCHEMA, SHARD_BYTES, SPLITS, UNSEEN_LABELS, Item, Modality, Rejection
from dagnn_core.data.ingest.shards import ShardWriter
from dagnn_core.data.vectors import BLOCK_ROWS, save_array, take_rows, write_matrix
from dagnn_core.disk import writing

MODALITIES = {(True, True): "complete", (True, False): "image_only", (False, True): "text_only"}
"""Whether an item has an image, and a text -> what the manifest counts it as."""


class DatasetWriter:
    """Streams items into Parquet shards; at most one row group is in memory.

    Use it as a context manager, add all items, then take `content` after the block.
    """

    def __init__(
        self,
        folder: Path,
        label_names: Sequence[str],
        *,
        columns: Sequence[str] = (),
        unfinished: Path | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Open a writer.

        Args:
            folder: an empty folder, where the files are when the block ends without error.
            label_names: columns of the label matrix.
            columns: columns of the source that every item has.
            unfinished: folder where finished shards stay when the block is interrupted; None: they need not.
            shard_bytes: images of at least so many bytes make a shard.
        """
        self._folder = folder
        self._label_names = tuple(label_names)
        self._columns = {"columns": list(columns)} if columns else {}
        self._shards = ShardWriter(unfinished or folder, columns=columns, shard_bytes=shard_bytes)
        self._label_counts = {split: Counter[str]() for split in SPLITS}
        self._split_sizes = Counter[str]()
        self._modalities = Counter[str]()
        self._rejected = Counter[str]()
        self._vectors: dict[str, dict[str, Any]] = {}
        self._unseen: dict[str, Any] = {}

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._shards.finish()
        finally:
            self._shards.drop_unfinished()
        if error is None:
            self._shards.publish(self._folder)

    def take_finished(self, items: Iterable[Item]) -> int:
        """Take the first items as added that an interrupted writer of the same items has left in finished shards.

        Args:
            items: all items; their images are not looked at.

        Returns:
            How many they are.
        """
        num_items = self._shards.take_finished()
        for item in islice(items, num_items):
            self._count(item)
        return num_items

    def add(self, item: Item) -> None:
        """Append one item."""
        self._shards.add(item)
        self._count(item)

    def write_rejected(self, rejections: Sequence[Rejection]) -> None:
        """Write the rows that cannot be used."""
        columns = zip(*rejections, strict=True) if rejections else ([] for _ in REJECTED_SCHEMA)
        table = pa.table([list(column) for column in columns], schema=REJECTED_SCHEMA)
        path = self._folder / "rejected.parquet"
        with writing(path):
            pq.write_table(table, path)
        self._rejected.update(rejection.reason for rejection in rejections)

    def write_vectors(
        self, modality: Modality, vectors: NDArray[np.floating[Any]], rows: NDArray[np.int64] | range
    ) -> None:
        """Write the precomputed vectors of all items, a few at a time.

        Args:
            modality: of which they are.
            vectors: may be memory-mapped.
            rows: row of each item in `vectors`; -1 writes zeros.

        Shape:
            vectors [M, dim], rows [N].
        """
        path = self._folder / "vectors" / f"{modality}.npy"
        path.parent.mkdir(exist_ok=True)
        blocks = (
            take_rows(vectors, np.asarray(rows[start : start + BLOCK_ROWS]))
            for start in range(0, len(rows), BLOCK_ROWS)
        )
        write_matrix(path, blocks, shape=(len(rows), *vectors.shape[1:]), dtype=vectors.dtype)
        self._vectors[modality] = {"dim": vectors.shape[1], "dtype": str(vectors.dtype)}

    def write_unseen_labels(self, names: Sequence[str], labels: Iterable[Sequence[str]]) -> None:
        """Write the labels that training must not see, which the shards do not have.

        Args:
            names: columns of their matrix.
            labels: those of each item.
        """
        save_array(
            self._folder / UNSEEN_LABELS,
            np.array([[name in of_item for name in names] for of_item in labels], np.uint8),
        )
        self._unseen = {"unseen_label_names": list(names)}

    @property
    def content(self) -> dict[str, Any]:
        """What the manifest says about the files."""
        return {
            "label_names": list(self._label_names),
            "num_items": self._split_sizes.total(),
            "splits": {split: self._split_sizes[split] for split in SPLITS},
            "modalities": {name: self._modalities[name] for name in MODALITIES.values()},
            "label_counts": {
                split: {name: counts[name] for name in self._label_names}
                for split, counts in self._label_counts.items()
            },
            "rejected": dict(self._rejected.most_common()),
            "vectors": self._vectors,
            **self._unseen,
            **self._columns,
        }

    def _count(self, item: Item) -> None:
        self._split_sizes[item.split] += 1
        self._modalities[MODALITIES[item.has_image, item.has_text]] += 1
        self._label_counts[item.split].update(item.labels)
